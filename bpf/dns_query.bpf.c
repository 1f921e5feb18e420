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
#include "stage.h"
#include "stream.h"

/* A query's question is in its first bytes; what follows does not matter. */
#define QUERY_BYTES 512

static __always_inline __u64 differing(const struct endpoint_key *one,
				       const struct endpoint_key *other)
{
	const __u32 *a = (const __u32 *)one, *b = (const __u32 *)other;

	return (a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]) | (a[4] ^ b[4]);
}

/* Whether an endpoint is one of the resolvers that most questions go to. */
static __always_inline bool is_near(const struct endpoint_key *key)
{
	__u32 zero = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);

	return set && (!differing(&set->resolvers[0], key) || !differing(&set->resolvers[1], key));
}

static __always_inline bool is_trusted(const struct packet *packet)
{
	struct endpoint_key key = {
		.address = packet->destination,
		.port = packet->destination_port,
		.protocol = packet->protocol,
	};
	enum endpoint_flag *flags;

	if (is_near(&key))
		return true;
	flags = bpf_map_lookup_elem(&endpoints, &key);
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
	bool readable;

	if (!s || !packet)
		return QUERY_MALFORMED;
	if (ends_after(STAGE_TRUSTED))
		return QUERY_ASKED;
	header = (struct dns_header *)s->message;
	s->asker.client = packet->source;
	s->asker.port = packet->source_port;
	s->asker.id = header->id;
	s->asker.protocol = packet->protocol;
	/* Early: the clock is read when all that was to be fetched is there. */
	s->now_ns = bpf_ktime_get_boot_ns();
	if (ends_after(STAGE_CLOCK))
		return QUERY_ASKED;
	expect_asker(s);
	prefetch_questions(s); /* which come while the question is read */
	if (ends_after(STAGE_ASKER))
		return QUERY_ASKED;
	readable = s->message_bytes >= HEADER_BYTES && !(header->flags & DNS_QR) &&
		   header->questions == bpf_htons(1) && read_question(s, &question);
	if (!readable && s->message_bytes)
		count(COUNTER_QUERY_MALFORMED);
	if (ends_after(STAGE_NAME))
		return QUERY_ASKED;
	if (refused(skb, s, packet, origin, readable))
		return QUERY_REFUSED;
	if (!readable)
		return QUERY_MALFORMED;
	if (ends_after(STAGE_RULES))
		return QUERY_ASKED;
	remember(s, question.hash);
	return QUERY_ASKED;
}

/* Whether the query in scratch is refused; one of no bytes could not be read, and was counted. */
static __always_inline bool query_refused(struct __sk_buff *skb, struct scratch *s,
					  const struct packet *packet, __u32 origin)
{
	return read_query(skb, s, packet, origin) == QUERY_REFUSED;
}

static long read_next(__u32 index, struct reading *reading)
{
	(void)index;
	if (!next_message(reading, QUERY_BYTES))
		return 1;
	if (!reading->s->message_bytes)
		count(COUNTER_QUERY_MALFORMED);
	reading->s->refused =
		query_refused(reading->skb, reading->s, reading->packet, reading->s->origin);
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
	if (fate == FATE_PASS && reading.s->stream.lost) {
		reading.s->message_bytes = 0;
		if (query_refused(reading.skb, reading.s, reading.packet, reading.s->origin))
			fate = FATE_REFUSE;
	}
	release_scratch(reading.s);
	return fate == FATE_REFUSE;
}

static __always_inline int ask_by_datagram(struct __sk_buff *skb, const struct packet *packet,
					   enum origin origin)
{
	struct scratch *s = claim_scratch();
	bool refused;

	if (!s) {
		count(COUNTER_BUSY);
		return 0;
	}
	if (!load_message(skb, s, packet, QUERY_BYTES)) {
		count(COUNTER_QUERY_MALFORMED);
		s->message_bytes = 0;
	}
	refused = query_refused(skb, s, packet, origin);
	release_scratch(s);
	return refused;
}

/* Reads the headers in scratch. */
static __always_inline void read_usual(struct scratch *s, struct packet *packet)
{
	const __u8 *ip = usual_headers(s);
	const __be16 *udp = (const __be16 *)(ip + IPV4_HEADER);

	map_ipv4(&packet->source, ip + 12);
	map_ipv4(&packet->destination, ip + 16);
	packet->offset = IPV4_HEADER;
	packet->protocol = IPPROTO_UDP;
	packet->version = 4;
	packet->icmp_type = 0;
	packet->fragment = false;
	packet->source_port = udp[0];
	packet->destination_port = udp[1];
	packet->udp_bytes = udp[2];
}

/* Whether the question is refused, as 1 or 0; -1 if the packet is not a usual one. */
static __always_inline int ask_as_usual(struct __sk_buff *skb, struct packet *packet,
					enum origin origin)
{
	struct scratch *s = claim_scratch();
	int refused = -1;

	if (!s)
		return -1; /* which is counted when it has been tried once more */
	if (load_usual(skb, s, QUERY_BYTES)) {
		read_usual(s, packet);
		refused = !ends_after(STAGE_MESSAGE) && is_trusted(packet) &&
			  query_refused(skb, s, packet, origin);
	}
	release_scratch(s);
	return refused;
}

static __always_inline int ask(struct __sk_buff *skb, enum origin origin)
{
	struct packet packet;
	int refused;

	if (ends_after(STAGE_NOTHING))
		return 0;
	refused = ask_as_usual(skb, &packet, origin);
	if (refused >= 0)
		return refused;
	if (!read_addresses(skb, &packet) || !read_transport(skb, &packet)) {
		count(COUNTER_QUERY_MALFORMED);
		return 0;
	}
	if (!is_trusted(&packet))
		return 0;
	if (packet.protocol == IPPROTO_TCP)
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
