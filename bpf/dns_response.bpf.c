//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Learns from DNS responses before they are delivered: what is not learned opens no door, and each
 * reason has its counter. All or nothing: maps change only when the whole message has proved
 * well-formed. Gives 0, whatever a response says; 1 only for a segment over TCP that is to be held
 * back, since what was not read yet would be whole with it (see stream.h).
 */
#include "answers.h"
#include "dns.h"
#include "mapping.h"
#include "questions.h"
#include "stage.h"
#include "stream.h"

#define SECOND_NS 1000000000ULL

/*
 * The generations to learn for, as bits. Both are in one word, since the agent switches them in
 * one.
 */
static __always_inline __u32 generations_of(const struct state *now)
{
	__u64 word = load_word((const __u64 *)now);

	return 1 << (word & 1) | 1 << (word >> 32 & 1);
}

/* What the header alone tells. Gives the reason not to go on, or COUNTER_LEARNED. */
static __always_inline enum counter judge_header(const struct dns_header *header)
{
	if (!(header->flags & DNS_QR))
		return COUNTER_NOT_RESPONSE;
	if (header->flags & DNS_OPCODE)
		return COUNTER_OPCODE;
	if (header->questions != bpf_htons(1))
		return COUNTER_QUESTION_COUNT;
	return COUNTER_LEARNED;
}

/* What the question tells, once it is known that it was asked. As judge_header. */
static __always_inline enum counter judge_answer(struct scratch *s)
{
	const struct dns_header *header = (struct dns_header *)s->message;

	if (header->flags & DNS_TC)
		return COUNTER_TRUNCATED;
	if (header->flags & DNS_RCODE)
		return COUNTER_RCODE;
	if (s->response.question.class != CLASS_IN)
		return COUNTER_CLASS;
	s->chain_names = 0;
	match_anew(s);
	append_to_chain(s, HEADER_BYTES);
	if (ends_after(STAGE_MATCH))
		return COUNTER_MALFORMED;
	return read_answers(s, s->response.question.end, bpf_ntohs(header->answers));
}

/*
 * The lifetime of everything that the answer says: one for all, so that none is forgotten before.
 */
static __always_inline void set_lifetime(struct scratch *s, const struct settings *set)
{
	__u64 lifetime_ns = s->min_ttl * SECOND_NS;

	if (lifetime_ns < set->min_ttl_ns)
		lifetime_ns = set->min_ttl_ns;
	if (lifetime_ns > set->max_ttl_ns)
		lifetime_ns = set->max_ttl_ns;
	lifetime_ns += set->ttl_grace_ns;
	s->response.lifetime = ticks(lifetime_ns);
	s->response.expires_at = ticks(s->now_ns + lifetime_ns);
}

static long commit_pair(__u32 index, struct walk *walk)
{
	struct scratch *s = walk->s;
	__u32 of = s->commit_address, set = s->commit_set;
	struct answer_address *address;

	(void)index;
	if (of >= ANSWER_ADDRESSES || set >= LEARNED_SETS)
		return 1;
	address = &s->event_addresses[of];
	search_for(&s->adding, &address->address);
	if (s->sets[set].names <= address->names &&
	    !prolong_known(&s->adding, s->sets[set].match_set, s->response.expires_at, s->now_ns))
		add_match_set(&s->adding, s->sets[set].match_set, s->response.expires_at, s->now_ns,
			      ADDING_ANSWER);
	s->commit_set = set + 1;
	if (s->commit_set == s->set_count) {
		s->commit_set = 0;
		s->commit_address = of + 1;
	}
	return 0;
}

/* Learns what the answer says. Gives what is counted. Verified once, by itself. */
__attribute__((noinline)) int commit(struct scratch *s)
{
	__u32 key = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &key);
	struct walk walk = {.s = s};

	if (!s || !set)
		return COUNTER_BUSY;
	if (s->special)
		count_many(COUNTER_SPECIAL_ADDRESS, s->special);
	if (s->over_limit)
		count_many(COUNTER_ADDRESSES_OVER_LIMIT, s->over_limit);
	if (s->addresses == 0)
		return COUNTER_NO_ADDRESS;
	if (s->sets_over_limit)
		count_many(COUNTER_SETS_OVER_LIMIT, s->sets_over_limit);
	set_lifetime(s, set);
	s->commit_address = 0;
	s->commit_set = 0;
	bpf_loop(s->addresses * s->set_count, commit_pair, &walk, 0);
	if (ends_after(STAGE_MAPPINGS))
		return COUNTER_LEARNED;
	tell(s, set);
	return s->set_count ? COUNTER_LEARNED : COUNTER_UNMATCHED;
}

/*
 * Where the first page of what is known of an address is, if that is at home: of the address in the
 * first record, if it is as most are.
 */
static __always_inline const void *first_mapping(struct scratch *s)
{
	__u32 at = s->response.question.end & MESSAGE_MAX;
	struct cell_search *m = &s->adding;
	struct address address = {};

	if (message_u16(s, at) != (POINTER | HEADER_BYTES) || message_u16(s, at + 2) != TYPE_A)
		return NULL;
	map_ipv4(&address, s->message + at + 2 + RECORD_HEAD);
	search_for(m, &address);
	m->page = 0;
	return locate(m) ? cell_at(m->home) : NULL;
}

/*
 * Prefetches what the answer to a question that was read will need of the tables, names but for
 * suffixes of one label, which are few, and near; and notes where what was told is. The addresses
 * first and then all of it at once: a load that waits for memory lets a few hundred instructions
 * behind it go on, and no more. Not inlined: the stack of who calls is short.
 */
__attribute__((noinline)) int prefetch_answer(struct scratch *s)
{
	const void *told, *bucket, *cell, *bucket_below, *cell_below, *mapping;
	__u32 zero = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 below;

	if (!s || !set)
		return 0;
	s->response.told_by = mix(set, s->hash, s->response.question.type);
	told = answers_of(set, s->response.told_by);
	bucket = first_bucket(set, s->hash);
	cell = home_cell(set, s->hash);
	below = s->labels > 2 ? s->label_hash[1] : s->hash;
	bucket_below = first_bucket(set, below);
	cell_below = home_cell(set, below);
	mapping = first_mapping(s);
	if (mapping)
		prefetch(mapping);
	if (told)
		prefetch(told);
	if (bucket)
		prefetch(bucket);
	if (cell)
		prefetch(cell);
	if (bucket_below)
		prefetch(bucket_below);
	if (cell_below)
		prefetch(cell_below);
	return 0;
}

/*
 * Finds the slot of the question that is answered, judges the rest of the message, and learns it.
 */
static __always_inline enum counter answer_query(struct scratch *s, const struct settings *set)
{
	bool readable = read_question(s, &s->response.question);
	enum counter result;
	int finding;

	if (ends_after(STAGE_NAME))
		return COUNTER_NO_QUERY;
	prefetch_questions(s);
	if (readable)
		prefetch_answer(s);
	if (ends_after(STAGE_AHEAD))
		return COUNTER_NO_QUERY;
	/* No question has the hash 0: then it is only whether anything was asked. */
	finding = find_question(s, readable ? s->response.question.hash : 0);
	if (finding == NOTHING_ASKED)
		return COUNTER_NO_QUERY;
	if (!readable)
		return COUNTER_MALFORMED;
	if (finding == OTHER_ASKED)
		return COUNTER_WRONG_QUESTION;
	if (s->asked.state & STATE_ANSWERED)
		return COUNTER_DUPLICATE;
	if (ends_after(STAGE_QUESTION))
		return COUNTER_NO_QUERY;
	if (s->now_ns > asked_at_ns(s->asked.state) + set->query_timeout_ns)
		return COUNTER_LATE;
	result = judge_answer(s);
	if (result == COUNTER_MALFORMED || ends_after(STAGE_RECORDS))
		return result;
	if (!take_question(s, s->response.question.hash))
		return COUNTER_DUPLICATE;
	if (result != COUNTER_LEARNED || ends_after(STAGE_TAKEN))
		return result;
	return commit(s);
}

/*
 * Learns from the message in scratch, which went to the client `asker` there, and counts what
 * became of it. Verified once, by itself.
 */
__attribute__((noinline)) int learn(struct scratch *s)
{
	const struct settings *set;
	struct dns_header *header;
	enum counter result;
	struct state *now;
	__u32 key = 0;

	if (!s)
		return 0;
	if (s->message_bytes < HEADER_BYTES) {
		count(COUNTER_MALFORMED);
		return 0;
	}
	if (ends_after(STAGE_MESSAGE))
		return 0;
	header = (struct dns_header *)s->message;
	result = judge_header(header);
	set = bpf_map_lookup_elem(&settings, &key);
	now = bpf_map_lookup_elem(&state, &key);
	if (result == COUNTER_LEARNED && set && now) {
		/* Early: the clock is read when all that was to be fetched is there. */
		s->now_ns = bpf_ktime_get_boot_ns();
		if (ends_after(STAGE_CLOCK))
			return 0;
		s->addresses_limit = set->addresses_per_name;
		s->generations = generations_of(now);
		s->asker.id = header->id;
		expect_asker(s);
		result = ends_after(STAGE_ASKER) ? COUNTER_NO_QUERY : answer_query(s, set);
	}
	count(result);
	return 0;
}

static __always_inline void note_asker(struct scratch *s, const struct packet *packet)
{
	s->asker.client = packet->destination;
	s->asker.port = packet->destination_port;
	s->asker.protocol = packet->protocol;
}

static long learn_next(__u32 index, struct reading *reading)
{
	(void)index;
	if (!next_message(reading, MESSAGE_MAX))
		return 1;
	learn(reading->s);
	return 0;
}

static __always_inline void note_usual_asker(struct scratch *s)
{
	const __u8 *ip = usual_headers(s);

	map_ipv4(&s->asker.client, ip + 16);
	s->asker.port = *(const __be16 *)(ip + IPV4_HEADER + 2);
	s->asker.protocol = IPPROTO_UDP;
}

/* A segment: 1 if it is to be held back. */
static __always_inline int respond_by_segment(struct __sk_buff *skb, const struct packet *packet)
{
	struct reading reading = {.skb = skb, .packet = packet};
	struct segment segment;
	enum fate fate = FATE_HOLD_BACK;

	if (!read_segment(skb, packet, &segment)) {
		count(COUNTER_MALFORMED);
		return 0;
	}
	if (segment.opens)
		open_stream(packet, segment.sequence);
	if (segment.bytes == 0)
		return 0;
	reading.s = claim_scratch();
	if (reading.s) {
		note_asker(reading.s, packet);
		reading.s->responses = true;
		fate = follow(&reading, &segment, learn_next);
		release_scratch(reading.s);
	}
	if (fate == FATE_HOLD_BACK)
		count(COUNTER_SEGMENT_HELD_BACK);
	return fate == FATE_HOLD_BACK;
}

static __always_inline void respond_by_datagram(struct __sk_buff *skb, const struct packet *packet)
{
	struct scratch *s = claim_scratch();

	if (!s) {
		count(COUNTER_BUSY);
		return;
	}
	note_asker(s, packet);
	if (load_message(skb, s, packet, MESSAGE_MAX))
		learn(s);
	else
		count(COUNTER_MALFORMED);
	release_scratch(s);
}

/* Gives whether the packet is a usual one. */
static __always_inline bool respond_as_usual(struct __sk_buff *skb)
{
	struct scratch *s = claim_scratch();
	bool usual;

	if (!s)
		return false; /* which is counted when it has been tried once more */
	usual = load_usual(skb, s, MESSAGE_MAX);
	if (usual) {
		note_usual_asker(s);
		learn(s);
	}
	release_scratch(s);
	return usual;
}

static __always_inline int respond(struct __sk_buff *skb)
{
	struct packet packet;

	if (ends_after(STAGE_NOTHING) || respond_as_usual(skb))
		return 0;
	if (!read_addresses(skb, &packet) || !read_transport(skb, &packet)) {
		count(COUNTER_MALFORMED);
		return 0;
	}
	if (packet.protocol == IPPROTO_TCP)
		return respond_by_segment(skb, &packet);
	if (packet.protocol == IPPROTO_UDP)
		respond_by_datagram(skb, &packet);
	else
		count(COUNTER_MALFORMED);
	return 0;
}

SEC("socket")
int dns_response(struct __sk_buff *skb)
{
	return respond(skb);
}

/*
 * Called for responses of resolvers that the node does not trust: nothing of them is learned. Of
 * packets over TCP those count that carry something.
 */
SEC("socket")
int dns_untrusted(struct __sk_buff *skb)
{
	struct segment segment = {};
	struct packet packet;

	if (read_addresses(skb, &packet) && read_transport(skb, &packet) &&
	    packet.protocol == IPPROTO_TCP && read_segment(skb, &packet, &segment) &&
	    segment.bytes == 0)
		return 0;
	count(COUNTER_UNTRUSTED);
	return 0;
}

/*
 * Called for what a trusted resolver sends to a port from which nobody asked it: nothing of it is
 * learned.
 */
SEC("socket")
int dns_unasked(struct __sk_buff *skb)
{
	(void)skb;
	count(COUNTER_NO_QUERY);
	return 0;
}
