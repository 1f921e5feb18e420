//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Changes for the agent what is known of addresses. User space must not write `mappings`: it would
 * undo what the programs add between its read and its write.
 */
#include "mapping.h"

/* Gives 1 if the entry came to nothing, else 0. Verified once, by itself. */
__attribute__((noinline)) int remap_one(struct remap_entry *entry, __u64 now_ns)
{
	struct cell_search m = {};
	struct address address;

	if (!entry)
		return 1;
	address = entry->address;
	search_for(&m, &address);
	switch (entry->action) {
	case REMAP_FORGET:
		return !forget_match_set(&m, entry->match_set, entry->expires_at);
	case REMAP_COLLECT:
		m.page = entry->match_set & (MAPPING_PAGES - 1);
		return !collect_page(&m, entry->expires_at);
	default:
		return add_match_set(&m, entry->match_set, entry->expires_at, now_ns, ADDING_AGENT);
	}
}

SEC("syscall")
int remap(struct remap_request *request)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();
	__u32 failed = 0;

	/* Unrolled, since the context may only be read at constant offsets. */
#pragma unroll
	for (__u32 i = 0; i < REMAP_ENTRIES; i++) {
		if (i < request->count) {
			struct remap_entry entry = request->entries[i];

			failed += remap_one(&entry, now_ns);
		}
	}
	request->failed = failed;
	return 0;
}
