// Package bpf holds the kernel programs of the data plane, their maps and the Go types of both.
//
// The C is the only definition of every layout: types.h and maps.h. The generated Go gives the
// collection (LoadDatapath), its programs and maps (DatapathObjects) and a type for each shared
// struct and enum. The programs of one object share their maps; xt_bpf calls
// dns_query_*, dns_response, dns_untrusted, dns_unasked, egress_* and accept_*, and the agent calls remap with
// BPF_PROG_TEST_RUN. None of them ever drops a packet: the egress programs return 1 for a denied
// one, the accept programs for an allowed one, the query programs for a refused question, the others 0.
package bpf

//go:generate go tool bpf2go -go-package bpf -target bpfel -cc clang-14 -strip llvm-strip-14 -type address -type generation_flag -type source_family -type generation_flags -type name_cell -type common_match_sets -type general_form -type general_limit -type general_pattern -type name_bucket -type prefix_key -type cell_role -type host_limit -type host_cell -type source_class -type interface_classes -type origin -type workload_key -type workload_flag -type workload -type component -type verdict_limit -type verdict_flag -type verdict -type mapping_limit -type mapping -type query_key -type question_bucket -type stream_limit -type stream_key -type stream -type stream_buffer -type endpoint_flag -type endpoint_key -type answer_limit -type answer_bucket -type event_type -type answer_event -type answer_address -type flow_flag -type flow_reason -type flow_event -type flow_limit -type cgroup_limit -type cgroup_key -type cgroup_node -type cgroup_pair -type cgroup_table -type cgroup_known_key -type cgroup_classes -type cgroup_known -type remap_request -type remap_entry -type remap_action -type counter -type scratch_limit Datapath datapath.bpf.c -- -O2 -fno-unroll-loops -g -Wall -Wextra -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu
