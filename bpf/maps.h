/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Every map, once. Capacities are defaults: the agent sets them from its configuration at load. */
#pragma once

#include "types.h"
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

/*
 * Not preallocated: tables that the agent writes and no packet grows, at rest smaller than they may
 * be.
 */
#define TABLE(map_name, entries, key_type, value_type)                                             \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_HASH);                                                   \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                               \
	} map_name SEC(".maps")

#define MAP(map_name, map_type, entries, key_type, value_type)                                     \
	struct {                                                                                   \
		__uint(type, map_type);                                                            \
		__uint(max_entries, entries);                                                      \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                               \
	} map_name SEC(".maps")

/*
 * An array whose elements are where the lines of the cache are: others begin behind the fields of
 * the map, wherever these end on a kernel, so that a bucket of one line is in two. In one that
 * could be mapped into memory, which nobody does, they begin at a page.
 */
#define LINES(map_name, entries, key_type, value_type)                                             \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_ARRAY);                                                  \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, BPF_F_MMAPABLE);                                                 \
		__type(key, key_type);                                                             \
		__type(value, value_type);                                                         \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                               \
	} map_name SEC(".maps")

LINES(settings, 1, __u32, struct settings);
MAP(state, BPF_MAP_TYPE_ARRAY, 1, __u32, struct state);
LINES(generations, GENERATIONS, __u32, struct generation_flags);

/* What a name matches. */
LINES(name_index, 1 << 15, __u32, struct name_bucket);
LINES(name_cells, 160 << 10, __u32, struct name_cell);
LINES(common_sets, GENERATIONS, __u32, struct common_match_sets);
MAP(patterns, BPF_MAP_TYPE_ARRAY, GENERATIONS *GENERAL_PATTERNS, enum general_limit,
    struct general_pattern);

/* Who opens a connection. */
TABLE(interfaces, 4096, __u32, struct interface_classes);
LINES(hosts, GENERATIONS *HOST_CELLS, enum host_limit, struct host_cell);
TABLE(workloads, 65536, struct workload_key, struct workload);
MAP(cgroup_tables, BPF_MAP_TYPE_ARRAY, GENERATIONS, __u32, struct cgroup_table);
TABLE(cgroups, 65536, struct cgroup_key, struct cgroup_node);
TABLE(cgroup_pairs, 65536, struct cgroup_pair, __u32);
MAP(cgroups_known, BPF_MAP_TYPE_LRU_HASH, 4096, struct cgroup_known_key, struct cgroup_known);

/* What it may do. */
LINES(verdicts, GENERATIONS *VERDICT_CELLS, enum verdict_limit, struct verdict);

/* What is known of the world. */
LINES(mappings, 491520, enum mapping_limit, struct mapping);
LINES(questions, 256 + 10240, __u32, struct question_bucket);
LINES(answers, 65536, enum answer_limit, struct answer_bucket);
MAP(streams, BPF_MAP_TYPE_LRU_HASH, 16384, struct stream_key, struct stream);
MAP(stream_buffers, BPF_MAP_TYPE_ARRAY, STREAM_BUFFERS, enum stream_limit, struct stream_buffer);
MAP(stream_locks, BPF_MAP_TYPE_ARRAY, STREAM_LOCKS, __u32, __u32);
TABLE(endpoints, 1024, struct endpoint_key, enum endpoint_flag);

/* Flow events: a CPU's share, and how far each has run ahead of it (see flow.h). */
MAP(flow_limits, BPF_MAP_TYPE_ARRAY, 1, __u32, struct flow_limit);
MAP(flow_clocks, BPF_MAP_TYPE_PERCPU_ARRAY, 1, __u32, __u64);

/* What positions of rules mean in a generation: a digest that the agent knows its rule set by. */
MAP(rule_sets, BPF_MAP_TYPE_ARRAY, GENERATIONS, __u32, __u64);

MAP(counters, BPF_MAP_TYPE_PERCPU_ARRAY, COUNTER_MAX, enum counter, __u64);

#define PREFIX_MAP(map_name, entries, value_type)                                                  \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_LPM_TRIE);                                               \
		__uint(max_entries, entries);                                                      \
		__uint(map_flags, BPF_F_NO_PREALLOC);                                              \
		__type(key, struct prefix_key);                                                    \
		__type(value, value_type);                                                         \
		__uint(pinning, LIBBPF_PIN_BY_NAME);                                               \
	} map_name SEC(".maps")

PREFIX_MAP(sources, 65536, struct source_class);
PREFIX_MAP(destinations, 65536, __u32); /* class of a destination address */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 << 20);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} events SEC(".maps");
