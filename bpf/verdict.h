/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The rules that one component of a destination can match, and the first of them that does, over
 * all workloads that the connection is of.
 */
#pragma once

#include "maps.h"
#include <stdbool.h>

#define NO_RULE 0xffffffffULL /* in place of a position */

/* What is asked of every component of a destination, and the best answer so far. */
struct judgement {
	__u32 generation;
	__u32 flags;	      /* enum workload_flag, of all workloads */
	__u32 workload_count; /* 0: no policy selects the connection */
	union {
		__u32 workloads[CONNECTION_WORKLOADS]; /* ids */
		/* Before: each gives way to the workload that it leads to. */
		struct cgroup_classes classes;
	};
	__u32 protocol; /* as verdict_entry has it */
	__u32 port;	/* host byte order */
	/* The first rule that matches, in each mode: position << 1, and 1 if it denies. */
	__u64 first[2];
};

enum { ENFORCED = 0, AUDITED = 1 }; /* in `first` */

static __always_inline __u32 position_of(__u64 rule)
{
	return rule >> 1;
}

static __always_inline bool denies(__u64 rule)
{
	return rule & 1;
}

/* A judgement before any rule was asked. */
static __always_inline void begin(struct judgement *judgement, __u32 generation)
{
	__builtin_memset(judgement, 0, sizeof(*judgement));
	judgement->generation = generation;
	judgement->first[ENFORCED] = NO_RULE << 1;
	judgement->first[AUDITED] = NO_RULE << 1;
}

/* Adds a workload. False: there is none. */
static __always_inline bool add_known(struct judgement *judgement, const struct workload *workload)
{
	__u32 count = judgement->workload_count;

	if (!workload->flags || count >= CONNECTION_WORKLOADS)
		return false;
	judgement->workloads[count] = workload->id;
	judgement->workload_count = count + 1;
	judgement->flags |= workload->flags;
	return true;
}

/* Adds the workload of a key that the connection has. False: no policy selects by that key. */
static __always_inline bool add_workload(struct judgement *judgement,
					 const struct workload_key *key)
{
	const struct workload *workload = bpf_map_lookup_elem(&workloads, key);

	return workload && add_known(judgement, workload);
}

/*
 * Whether an entry is for another protocol or port, as 1 or 0: without a branch, which the verifier
 * would follow, over all entries and pages.
 */
static __always_inline __u64 misses(const struct verdict_entry *entry,
				    const struct judgement *judgement)
{
	__u64 port = judgement->port;
	__u64 outside = (port - entry->first_port) | (entry->last_port - port);
	__u64 other = -(__u64)(entry->protocol ^ judgement->protocol);
	__u64 some = -(__u64)entry->protocol;

	return (some & (other | outside)) >> 63;
}

static __always_inline void consider(const struct verdict_entry *entry, struct judgement *judgement)
{
	__u64 rule = (__u64)entry->position << 1 | (entry->flags & VERDICT_DENY);
	__u64 *first = &judgement->first[(entry->flags & VERDICT_AUDIT) / VERDICT_AUDIT];

	if (!misses(entry, judgement) && rule < *first)
		*first = rule;
}

/*
 * Asks the rules of one page of a workload. Gives whether there is a next one. Verified once, by
 * itself.
 */
__attribute__((noinline)) int judge_page(struct judgement *judgement, __u32 workload,
					 __u32 component, __u32 page)
{
	struct verdict_key key = {.workload = workload, .component = component, .page = page};
	struct verdict *verdict;

	if (!judgement)
		return 0;
	key.generation = judgement->generation;
	verdict = bpf_map_lookup_elem(&verdicts, &key);
	if (!verdict)
		return 0;
	for (__u32 i = 0; i < VERDICT_ENTRIES; i++) {
		if (i >= verdict->count)
			break;
		consider(&verdict->entries[i], judgement);
	}
	return verdict->more;
}

/* Asks the rules that one component of the destination can match. Verified once, by itself. */
__attribute__((noinline)) int judge_component(struct judgement *judgement, __u32 component)
{
	if (!judgement)
		return 0;
	for (__u32 i = 0; i < CONNECTION_WORKLOADS; i++) {
		if (i >= judgement->workload_count)
			break;
		for (__u32 page = 0; page < VERDICT_PAGES; page++) {
			if (!judge_page(judgement, judgement->workloads[i], component, page))
				break;
		}
	}
	return 0;
}
