/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Which questions a workload may not ask. */
#pragma once

#include "count.h"
#include "flow.h"
#include "name.h"
#include "verdict.h"
#include "workload.h"

/* Asks the rules for the name that was read last, at place 0. Ports do not count. */
static __always_inline void judge_question(struct scratch *s, struct judgement *judgement)
{
	match_anew(s);
	match_name(s, 0, judgement->generation);
	judge_component(judgement, COMPONENT_ANY_QUESTION << COMPONENT_SHIFT);
	for (__u32 i = 0; i < SETS_OF_NAME; i++) {
		if (i >= s->set_count)
			break;
		judge_component(judgement,
				COMPONENT_QUESTION << COMPONENT_SHIFT | s->sets[i].match_set);
	}
}

/*
 * The same of what asks in a way that cannot be read: a rule that refuses every name refuses it
 * too. Else who writes a question oddly would get it past the rules.
 */
static __always_inline void judge_unread(struct scratch *s, struct judgement *judgement)
{
	s->bytes = 0; /* of a name */
	judge_component(judgement, COMPONENT_ANY_QUESTION << COMPONENT_SHIFT);
}

/* Tells of a question that rules refuse, or would. */
static __always_inline void tell_judged(struct __sk_buff *skb, struct scratch *s,
					const struct packet *packet, enum origin origin,
					const struct judgement *judgement, __u32 flags)
{
	struct flow flow = {
		.flags = flags | (origin == ORIGIN_LOCAL ? FLOW_LOCAL : 0),
		.reason = s->bytes ? 0 : FLOW_UNREADABLE,
		.generation = judgement->generation,
		.enforced = position_of(judgement->first[ENFORCED]),
		.audited = position_of(judgement->first[AUDITED]),
	};

	if (flow.enforced != NO_RULE)
		flow.flags |= FLOW_ENFORCED_RULE;
	if (flow.audited != NO_RULE)
		flow.flags |= FLOW_AUDITED_RULE;
	tell_question(skb, s, packet, &flow);
}

/*
 * Whether the rules refuse the question whose name was read last, over any transport, or one that
 * cannot be read; that, and what only AUDIT policies would refuse, is told. A question is never
 * refused for another reason: of whom cannot be told, it is asked, and opens nothing by itself.
 */
static __always_inline bool refused(struct __sk_buff *skb, struct scratch *s,
				    const struct packet *packet, enum origin origin, bool readable)
{
	struct judgement *judgement = &s->judgement;
	struct generation_flags *generation;
	__u32 zero = 0, active, flags = 0;
	struct state *now;

	now = bpf_map_lookup_elem(&state, &zero);
	if (!now)
		return false;
	active = *(volatile __u32 *)&now->active & (GENERATIONS - 1);
	generation = bpf_map_lookup_elem(&generations, &active);
	if (!generation || !unlikely(generation->flags & GENERATION_REFUSES))
		return false;
	begin(judgement, active, generation);
	if (identify(skb, packet, origin, generation, judgement) != IDENTITY_KNOWN ||
	    judgement->workload_count == 0)
		return false;
	if (readable)
		judge_question(s, judgement);
	else
		judge_unread(s, judgement);
	if (judgement->flags & WORKLOAD_ENFORCED && denies(judgement->first[ENFORCED]))
		flags |= FLOW_DENIED;
	if (judgement->flags & WORKLOAD_AUDITED && denies(judgement->first[AUDITED]))
		flags |= FLOW_AUDITED;
	if (!flags)
		return false;
	count(flags & FLOW_DENIED ? COUNTER_QUERY_REFUSED : COUNTER_QUERY_AUDIT);
	tell_judged(skb, s, packet, origin, judgement, flags);
	return flags & FLOW_DENIED;
}
