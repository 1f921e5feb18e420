//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Remembers what clients ask trusted resolvers, so that only answers to it are learned. Never stops
 * a packet: of what it cannot read, the answer is not learned.
 */
#include "dns.h"

/* A query's question is in its first bytes; what follows does not matter. */
#define QUERY_BYTES 512

static __always_inline bool is_trusted(const struct packet *packet)
{
	struct endpoint_key key = {
		.address = packet->destination,
		.port = packet->destination_port,
		.protocol = packet->protocol,
	};
	enum endpoint_flag *flags = bpf_map_lookup_elem(&endpoints, &key);

	return flags && *flags & ENDPOINT_RESOLVER;
}

/* The slot for a question: its own, else a free one, else that of the older question. */
static __always_inline __u32 slot_for(const struct query *query, __u64 question)
{
	if (query->question[0] == question)
		return 0;
	if (query->question[1] == question)
		return 1;
	return query->asked_at_ns[1] < query->asked_at_ns[0];
}

/*
 * The entry is replaced, never changed in place: when the map is full, the place of the old one may
 * be another client's by now.
 */
static __always_inline void remember(const struct query_key *key, __u64 question)
{
	struct query *known = bpf_map_lookup_elem(&queries, key);
	struct query query = {};
	__u64 now_ns = bpf_ktime_get_boot_ns();

	if (known)
		query = *known;
	if (slot_for(&query, question) == 0) {
		query.question[0] = question;
		query.asked_at_ns[0] = now_ns;
	} else {
		query.question[1] = question;
		query.asked_at_ns[1] = now_ns;
	}
	bpf_map_update_elem(&queries, key, &query, BPF_ANY);
	count(COUNTER_QUERY);
}

static __always_inline bool read_query(struct __sk_buff *skb, struct scratch *s,
				       struct packet *packet)
{
	struct dns_header *header = (struct dns_header *)s->message;
	struct question question;
	struct query_key key = {};

	if (!load_message(skb, s, packet, QUERY_BYTES) || header->flags & DNS_QR ||
	    header->questions != bpf_htons(1) || !read_question(s, &question))
		return false;
	key.client = packet->source;
	key.port = packet->source_port;
	key.id = header->id;
	key.protocol = packet->protocol;
	remember(&key, question.hash);
	return true;
}

SEC("socket")
int dns_query(struct __sk_buff *skb)
{
	struct packet packet;
	struct scratch *s;

	if (!read_addresses(skb, &packet) || !read_transport(skb, &packet)) {
		count(COUNTER_QUERY_MALFORMED);
		return 0;
	}
	if (packet.protocol != IPPROTO_UDP || !is_trusted(&packet))
		return 0;
	s = claim_scratch();
	if (!s) {
		count(COUNTER_BUSY);
		return 0;
	}
	if (!read_query(skb, s, &packet))
		count(COUNTER_QUERY_MALFORMED);
	release_scratch(s);
	return 0;
}
