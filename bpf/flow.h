/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Tells the agent of connections that were denied or would have been, and of questions. Answers
 * share the ring buffer and matter more: flow events are rate-limited and take no more than half of
 * it. Each one is counted as told, suppressed or lost.
 */
#pragma once

#include "count.h"
#include "packet.h"
#include "process.h"
#include "scratch.h"

#define TOKEN_TRIES 4 /* so often may an interrupt on this CPU be faster */

/* What became of a connection. */
struct flow {
	__u32 flags; /* enum flow_flag, of what the verdict was */
	enum flow_reason reason;
	__u32 generation;
	__u32 enforced;
	__u32 audited;
};

/*
 * Takes a token of this CPU's bucket. The bucket is a clock that each event moves on by an
 * interval: it may not be further ahead of the real one than the burst.
 */
static __always_inline bool take_token(__u64 now_ns)
{
	__u32 key = 0;
	const struct flow_limit *limit = bpf_map_lookup_elem(&flow_limits, &key);
	__u64 *clock = bpf_map_lookup_elem(&flow_clocks, &key);

	if (!limit || !clock)
		return false;
	for (int i = 0; i < TOKEN_TRIES; i++) {
		__u64 was = *(volatile __u64 *)clock;
		__u64 next = (was > now_ns ? was : now_ns) + limit->interval_ns;

		if (next - now_ns > limit->burst_ns)
			return false;
		if (__sync_bool_compare_and_swap(clock, was, next))
			return true;
	}
	return false;
}

static __always_inline bool ring_has_room(void)
{
	return bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) <=
	       bpf_ringbuf_query(&events, BPF_RB_RING_SIZE) / 2;
}

/*
 * Who opened a local connection: a uid only where a socket says so, since that of none is one too.
 * Verified once, by itself; not inlined, so that BTF has the event.
 */
__attribute__((noinline)) int tell_uid(struct __sk_buff *skb, struct flow_event *event)
{
	if (!event || !(event->flags & FLOW_LOCAL) || !of_process(skb))
		return 0;
	event->uid = bpf_get_socket_uid(skb);
	event->flags |= FLOW_UID;
	return 0;
}

/* Everything of the event that does not depend on what the packet carries. */
static __always_inline void describe_flow(struct __sk_buff *skb, const struct packet *packet,
					  const struct flow *flow, __u64 now_ns,
					  struct flow_event *event)
{
	__u32 generation = flow->generation;
	const __u64 *rule_set = bpf_map_lookup_elem(&rule_sets, &generation);

	__builtin_memset(event, 0, sizeof(*event));
	event->type = EVENT_FLOW;
	event->flags = flow->flags;
	event->rule_set = rule_set ? *rule_set : 0;
	event->seen_at_ns = now_ns;
	event->source = packet->source;
	event->destination = packet->destination;
	event->source_port = packet->source_port;
	event->destination_port = packet->destination_port;
	event->ifindex = skb->ifindex;
	event->enforced = flow->enforced;
	event->audited = flow->audited;
	event->reason = flow->reason;
	event->protocol = packet->protocol;
	tell_uid(skb, event);
}

/* Whether an event may be told now; the others are counted. */
static __always_inline bool may_tell(__u64 now_ns)
{
	if (!ring_has_room()) {
		count(COUNTER_FLOW_LOST);
		return false;
	}
	if (!take_token(now_ns)) {
		count(COUNTER_FLOW_SUPPRESSED);
		return false;
	}
	return true;
}

/* Verified once, by itself. */
__attribute__((noinline)) int tell_flow(struct __sk_buff *skb, const struct packet *packet,
					const struct flow *flow)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();
	struct flow_event event;

	if (!packet || !flow || !may_tell(now_ns))
		return 0;
	describe_flow(skb, packet, flow, now_ns, &event);
	if (bpf_ringbuf_output(&events, &event, sizeof(event), 0))
		count(COUNTER_FLOW_LOST);
	else
		count(COUNTER_FLOW_EVENT);
	return 0;
}

/*
 * Tells of a question, with the name that was read last, whose text is at place 0: the event is
 * laid out in scratch, where no answer is then. Verified once, by itself.
 */
__attribute__((noinline)) int tell_question(struct __sk_buff *skb, struct scratch *s,
					    const struct packet *packet, const struct flow *flow)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();
	struct flow_event *event;
	__u32 bytes;

	if (!s || !packet || !flow || !may_tell(now_ns))
		return 0;
	event = (struct flow_event *)s->event_tail;
	describe_flow(skb, packet, flow, now_ns, event);
	for (__u32 i = 0; i <= NAME_MAX_BYTES / 8; i++)
		*(__u64 *)(s->event_tail + sizeof(*event) + i * 8) = *(__u64 *)(s->text + i * 8);
	event->name_bytes = s->bytes;
	bytes = (sizeof(*event) + (s->bytes & TEXT_MASK) + 7) & ~7U;
	if (bpf_ringbuf_output(&events, event, bytes, 0))
		count(COUNTER_FLOW_LOST);
	else
		count(COUNTER_FLOW_EVENT);
	return 0;
}
