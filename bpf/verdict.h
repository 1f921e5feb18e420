/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * The rules that one component of a destination can match, and the first of them that does, over
 * all workloads that the connection is of.
 */
#pragma once

#include "maps.h"
#include <stdbool.h>

#define NO_RULE (~0U)

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
	/*
	 * Positions of the first rules that match, of policies in mode ENFORCE and in mode AUDIT.
	 */
	__u32 enforced;
	__u32 audited;
	/* Whether these rules deny; no rule: yes. */
	__u32 enforced_denies;
	__u32 audited_denies;
};

/* A judgement before any rule was asked. */
static __always_inline void begin(struct judgement *judgement, __u32 generation)
{
	__builtin_memset(judgement, 0, sizeof(*judgement));
	judgement->generation = generation;
	judgement->enforced = NO_RULE;
	judgement->audited = NO_RULE;
}

/* Adds the workload of a key that the connection has. False: no policy selects by that key. */
static __always_inline bool add_workload(struct judgement *judgement,
					 const struct workload_key *key)
{
	const struct workload *workload = bpf_map_lookup_elem(&workloads, key);
	__u32 count = judgement->workload_count;

	if (!workload || count >= CONNECTION_WORKLOADS)
		return false;
	judgement->workloads[count] = workload->id;
	judgement->workload_count = count + 1;
	judgement->flags |= workload->flags;
	return true;
}

static __always_inline bool fits(const struct verdict_entry *entry,
				 const struct judgement *judgement)
{
	if (entry->protocol == 0)
		return true;
	return entry->protocol == judgement->protocol && judgement->port >= entry->first_port &&
	       judgement->port <= entry->last_port;
}

static __always_inline void consider(const struct verdict_entry *entry, struct judgement *judgement)
{
	if (!fits(entry, judgement))
		return;
	if (entry->flags & VERDICT_AUDIT) {
		if (entry->position < judgement->audited) {
			judgement->audited = entry->position;
			judgement->audited_denies = entry->flags & VERDICT_DENY;
		}
	} else if (entry->position < judgement->enforced) {
		judgement->enforced = entry->position;
		judgement->enforced_denies = entry->flags & VERDICT_DENY;
	}
}

/* Asks the rules of one workload. Verified once, by itself. */
__attribute__((noinline)) int judge_workload(struct judgement *judgement, __u32 workload,
					     __u32 component)
{
	struct verdict_key key = {.workload = workload, .component = component};

	if (!judgement)
		return 0;
	key.generation = judgement->generation;
	for (__u32 page = 0; page < VERDICT_PAGES; page++) {
		struct verdict *verdict;

		key.page = page;
		verdict = bpf_map_lookup_elem(&verdicts, &key);
		if (!verdict)
			return 0;
		for (__u32 i = 0; i < VERDICT_ENTRIES; i++) {
			if (i >= verdict->count)
				break;
			consider(&verdict->entries[i], judgement);
		}
		if (!verdict->more)
			return 0;
	}
	return 0;
}

/* Asks the rules that one component of the destination can match. Verified once, by itself. */
__attribute__((noinline)) int judge_component(struct judgement *judgement, __u32 component)
{
	if (!judgement)
		return 0;
	for (__u32 i = 0; i < CONNECTION_WORKLOADS; i++) {
		if (i >= judgement->workload_count)
			break;
		judge_workload(judgement, judgement->workloads[i], component);
	}
	return 0;
}
