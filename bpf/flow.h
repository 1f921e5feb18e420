/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Tells the agent of connections that were denied or would have been. Answers share the ring buffer
 * and matter more: flow events are rate-limited and take no more than half of it. Each one is
 * counted as told, suppressed or lost.
 */
#pragma once

#include "count.h"
#include "packet.h"
#include "process.h"

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

static __always_inline bool send_flow(struct __sk_buff *skb, const struct packet *packet,
				      const struct flow *flow, __u64 now_ns)
{
	__u32 generation = flow->generation;
	const __u64 *rule_set = bpf_map_lookup_elem(&rule_sets, &generation);
	struct flow_event event = {
		.type = EVENT_FLOW,
		.flags = flow->flags,
		.rule_set = rule_set ? *rule_set : 0,
		.seen_at_ns = now_ns,
		.source = packet->source,
		.destination = packet->destination,
		.source_port = packet->source_port,
		.destination_port = packet->destination_port,
		.ifindex = skb->ifindex,
		.enforced = flow->enforced,
		.audited = flow->audited,
		.reason = flow->reason,
		.protocol = packet->protocol,
	};

	tell_uid(skb, &event);
	return bpf_ringbuf_output(&events, &event, sizeof(event), 0) == 0;
}

/* Verified once, by itself. */
__attribute__((noinline)) int tell_flow(struct __sk_buff *skb, const struct packet *packet,
					const struct flow *flow)
{
	__u64 now_ns = bpf_ktime_get_boot_ns();

	if (!packet || !flow)
		return 0;
	if (!ring_has_room())
		count(COUNTER_FLOW_LOST);
	else if (!take_token(now_ns))
		count(COUNTER_FLOW_SUPPRESSED);
	else if (send_flow(skb, packet, flow, now_ns))
		count(COUNTER_FLOW_EVENT);
	else
		count(COUNTER_FLOW_LOST);
	return 0;
}
