//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Adds match sets to addresses for the agent. User space must not write `mappings`: it would undo
 * what the programs add between its read and its write.
 */
#include "mapping.h"

SEC("syscall")
int remap(struct remap_request *request)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();
	__u32 failed = 0;

	/* Unrolled, since the context may only be read at constant offsets. */
#pragma unroll
	for (__u32 i = 0; i < REMAP_ENTRIES; i++) {
		if (i < request->count) {
			struct address address = request->entries[i].address;

			failed += add_match_set(&address, request->entries[i].match_set,
						request->entries[i].expires_at, now_ns);
		}
	}
	request->failed = failed;
	return 0;
}
