//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#include "maps.h"
#include "scratch.h"

SEC("socket")
int dns_response(struct __sk_buff *skb)
{
	struct answer_event *e = bpf_ringbuf_reserve(&events, sizeof(*e), 0);
	struct answer_address a = {};
	if (e) bpf_ringbuf_discard(e, 0);
	enum counter c = 0;
	bpf_map_lookup_elem(&counters, &c);
	return skb->len == a.names;
}

SEC("socket")
int dns_untrusted(struct __sk_buff *skb)
{
	return skb->len == 0;
}
