//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Matches new connections that policies in mode ENFORCE select and allow: 1; 0 for all else, that
 * which no policy selects included. Asked after egress, which counts and tells; in full, since
 * another rule set may have come in between. On any doubt a connection is not matched: the node's
 * other rules decide.
 */
static __always_inline int accept(struct __sk_buff *skb, enum origin origin)
{
	struct generation_flags *generation;
	struct judgement judgement;
	struct packet packet = {};
	struct state *now;
	__u32 zero = 0, number;

	now = bpf_map_lookup_elem(&state, &zero);
	if (!now)
		return 0;
	number = *(volatile __u32 *)&now->active & (GENERATIONS - 1);
	generation = bpf_map_lookup_elem(&generations, &number);
	if (!generation || !(generation->flags & GENERATION_ENFORCES))
		return 0;
	if (!read_addresses(skb, &packet))
		return 0;
	begin(&judgement, number, generation);
	if (identify(skb, &packet, origin, generation, &judgement) != IDENTITY_KNOWN)
		return 0;
	if (!(judgement.flags & WORKLOAD_ENFORCED) || !read_transport(skb, &packet))
		return 0;
	weigh(&judgement, &packet, generation->flags);
	return !denies(judgement.first[ENFORCED]) || always_allowed(&packet, origin);
}

SEC("socket")
int accept_forwarded(struct __sk_buff *skb)
{
	return accept(skb, ORIGIN_FORWARDED);
}

SEC("socket")
int accept_local(struct __sk_buff *skb)
{
	return accept(skb, ORIGIN_LOCAL);
}
