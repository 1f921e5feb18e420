/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The rules that one component of a destination can match, and the first of them that does, over
 * all workloads that the connection is of.
 */
#pragma once

#include "cells.h"
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
	__u32 seed; /* as generation_flags has it */
	__u8 verdict_bits;
	__u8 protocol; /* as a rule of a verdict has it */
	__u16 port;    /* host byte order */
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
static __always_inline void begin(struct judgement *judgement, __u32 generation,
				  const struct generation_flags *whole)
{
	__builtin_memset(judgement, 0, sizeof(*judgement));
	judgement->generation = generation;
	judgement->seed = whole->seed;
	judgement->verdict_bits = whole->verdict_bits;
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
 * Whether a rule is for another protocol or port, as 1 or 0: without a branch, which the verifier
 * would follow, over all rules and cells.
 */
static __always_inline __u64 misses(__u64 entry, const struct judgement *judgement)
{
	__u64 port = judgement->port, protocol = entry >> VERDICT_PROTOCOL_SHIFT & 0xff;
	__u64 outside =
		(port - (entry & 0xffff)) | ((entry >> VERDICT_LAST_PORT_SHIFT & 0xffff) - port);
	__u64 other = -(protocol ^ judgement->protocol);

	return (-protocol & (other | outside)) >> 63;
}

static __always_inline void consider(__u64 entry, struct judgement *judgement)
{
	__u64 flags = entry >> VERDICT_FLAGS_SHIFT;
	__u64 rule = entry >> VERDICT_POSITION_SHIFT << 1 | (flags & VERDICT_DENY) / VERDICT_DENY;
	__u64 *first = &judgement->first[flags & VERDICT_AUDIT];

	if (!misses(entry, judgement) && rule < *first)
		*first = rule;
}

/*
 * Asks the rules of one cell, if it is of the key. Gives the cell in which to go on; 0: there is
 * none. Verified once, by itself.
 */
__attribute__((noinline)) int judge_cell(struct judgement *judgement, __u32 workload,
					 __u32 component, __u32 at, enum cell_role role)
{
	struct verdict *verdict = bpf_map_lookup_elem(&verdicts, &at);

	if (!judgement || !verdict || verdict->role != role)
		return 0;
	if (verdict->workload != workload || verdict->component != component)
		return verdict->next;
	for (__u32 i = 0; i < VERDICT_ENTRIES; i++) {
		__u64 entry = verdict->entries[i];

		if (!entry)
			break;
		consider(entry, judgement);
	}
	return verdict->flags & VERDICT_MORE ? verdict->next : 0;
}

/* Asks the rules that one component of the destination can match. Verified once, by itself. */
__attribute__((noinline)) int judge_component(struct judgement *judgement, __u32 component)
{
	if (!judgement)
		return 0;
	for (__u32 i = 0; i < CONNECTION_WORKLOADS; i++) {
		enum cell_role role = CELL_HOME;
		__u32 workload, at;

		if (i >= judgement->workload_count)
			break;
		workload = judgement->workloads[i];
		at = home_of_verdict(judgement->generation, judgement->seed,
				     judgement->verdict_bits, workload, component);
		for (__u32 cell = 0; cell < VERDICT_CHAIN; cell++) {
			at = judge_cell(judgement, workload, component, at, role);
			if (!at)
				break;
			role = CELL_AWAY;
		}
	}
	return 0;
}
