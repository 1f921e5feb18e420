//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Remembers what clients ask trusted resolvers, so that only answers to it are learned: 1 for a
 * question that the rules refuse, 0 for all else. Of what it cannot read, the answer is not
 * learned; a rule that refuses every question refuses that too.
 */
#include "dns.h"
#include "questions.h"
#include "refuse.h"
#include "stream.h"

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

enum query_result { QUERY_ASKED, QUERY_REFUSED, QUERY_MALFORMED };

/*
 * Reads the query in scratch, of which at least the first QUERY_BYTES are there. Gives an enum
 * query_result. Verified once, by itself.
 */
__attribute__((noinline)) int read_query(struct __sk_buff *skb, struct scratch *s,
					 const struct packet *packet, __u32 origin)
{
	struct dns_header *header;
	struct question question;

	if (!s || !packet)
		return QUERY_MALFORMED;
	header = (struct dns_header *)s->message;
	s->asker.client = packet->source;
	s->asker.port = packet->source_port;
	s->asker.id = header->id;
	s->asker.protocol = packet->protocol;
	expect_asker(s);
	if (s->message_bytes < HEADER_BYTES || header->flags & DNS_QR ||
	    header->questions != bpf_htons(1) || !read_question(s, &question)) {
		count(COUNTER_QUERY_MALFORMED);
		return QUERY_MALFORMED;
	}
	if (refused(skb, s, packet, origin))
		return QUERY_REFUSED;
	remember(s, question.hash);
	return QUERY_ASKED;
}

static long read_next(__u32 index, struct reading *reading)
{
	int result;

	(void)index;
	if (!next_message(reading, QUERY_BYTES))
		return 1;
	result = read_query(reading->skb, reading->s, reading->packet, reading->s->origin);
	if (result == QUERY_MALFORMED &&
	    refused_unread(reading->skb, reading->s, reading->packet, reading->s->origin))
		result = QUERY_REFUSED;
	reading->s->refused = result == QUERY_REFUSED;
	return reading->s->refused;
}

static __always_inline int ask_by_segment(struct __sk_buff *skb, const struct packet *packet,
					  enum origin origin)
{
	struct reading reading = {.skb = skb, .packet = packet};
	struct segment segment;
	enum fate fate;

	if (!read_segment(skb, packet, &segment)) {
		count(COUNTER_QUERY_MALFORMED);
		return 0;
	}
	if (segment.opens)
		open_stream(packet, segment.sequence);
	if (segment.bytes == 0)
		return 0;
	reading.s = claim_scratch();
	if (!reading.s) {
		count(COUNTER_BUSY);
		return 0;
	}
	reading.s->origin = origin;
	reading.s->responses = false;
	fate = follow(&reading, &segment, read_next);
	if (fate == FATE_PASS && reading.s->stream.lost &&
	    refused_unread(skb, reading.s, packet, origin))
		fate = FATE_REFUSE;
	release_scratch(reading.s);
	return fate == FATE_REFUSE;
}

static __always_inline int ask_by_datagram(struct __sk_buff *skb, const struct packet *packet,
					   enum origin origin)
{
	int result = QUERY_MALFORMED;
	struct scratch *s = claim_scratch();

	if (!s) {
		count(COUNTER_BUSY);
		return 0;
	}
	if (load_message(skb, s, packet, QUERY_BYTES))
		result = read_query(skb, s, packet, origin);
	else
		count(COUNTER_QUERY_MALFORMED);
	if (result == QUERY_MALFORMED && refused_unread(skb, s, packet, origin))
		result = QUERY_REFUSED;
	release_scratch(s);
	return result == QUERY_REFUSED;
}

static __always_inline int ask(struct __sk_buff *skb, enum origin origin)
{
	struct packet packet;

	if (!read_addresses(skb, &packet) || !read_transport(skb, &packet)) {
		count(COUNTER_QUERY_MALFORMED);
		return 0;
	}
	if (!is_trusted(&packet))
		return 0;
	if (unlikely(packet.protocol == IPPROTO_TCP))
		return ask_by_segment(skb, &packet, origin);
	return ask_by_datagram(skb, &packet, origin);
}

SEC("socket")
int dns_query_forwarded(struct __sk_buff *skb)
{
	return ask(skb, ORIGIN_FORWARDED);
}

SEC("socket")
int dns_query_local(struct __sk_buff *skb)
{
	return ask(skb, ORIGIN_LOCAL);
}
