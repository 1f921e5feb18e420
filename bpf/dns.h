/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* DNS messages: header, question, and what the answer section says about the asked name. */
#pragma once

#include "count.h"
#include "name.h"
#include "packet.h"

#define QUESTION_TAIL 4 /* bytes of a question behind its name */
#define RECORD_HEAD 10	/* bytes of a record between its name and its data */
#define TTL_SIGN (1U << 31)
#define POINTER 0xc000	  /* the high bits of a compression pointer */
#define NO_POSITION (~0U) /* no pointer leads there */

enum { TYPE_A = 1, TYPE_CNAME = 5, TYPE_AAAA = 28, TYPE_SVCB = 64, TYPE_HTTPS = 65, CLASS_IN = 1 };
enum { PARAM_IPV4HINT = 4, PARAM_IPV6HINT = 6 }; /* of a service binding (RFC 9460, 14.3.2) */

/* Flags in the third and fourth byte of a message, as a word in network order. */
#define DNS_QR bpf_htons(0x8000)
#define DNS_OPCODE bpf_htons(0x7800)
#define DNS_TC bpf_htons(0x0200)
#define DNS_RCODE bpf_htons(0x000f)

struct dns_header {
	__be16 id;
	__be16 flags;
	__be16 questions;
	__be16 answers;
	__be16 authority;
	__be16 additional;
};
_Static_assert(sizeof(struct dns_header) == HEADER_BYTES, "dns_header");

/*
 * Copies a UDP message into scratch, or its first `limit` bytes: one copy, then the message is
 * memory.
 */
static __always_inline bool load_message(struct __sk_buff *skb, struct scratch *s,
					 const struct packet *packet, __u32 limit)
{
	__u32 bytes = bpf_ntohs(packet->udp_bytes);

	if (bytes < UDP_HEADER + HEADER_BYTES || packet->offset + bytes > skb->len)
		return false;
	bytes -= UDP_HEADER;
	if (bytes > limit)
		bytes = limit;
	s->message_bytes = bytes;
	/*
	 * "R3 min value is outside of the allowed memory range", says Linux 6.1: it does not follow
	 * the bounds over the byte swap. The mask changes nothing; the compiler knows, but for the
	 * fresh load.
	 */
	bytes = ((*(volatile __u32 *)&s->message_bytes - 1) & MESSAGE_MAX) + 1;
	return load_bytes(skb, packet->offset + UDP_HEADER, s->message, bytes);
}

#define USUAL_HEADERS (IPV4_HEADER + UDP_HEADER)

/* The headers of a usual packet, in scratch. */
static __always_inline __u8 *usual_headers(struct scratch *s)
{
	return s->headers + HEADERS_ROOM - USUAL_HEADERS;
}

/*
 * Copies a usual packet, UDP over IPv4 without options, with the first `limit` bytes of its
 * message: one copy of all, since each takes as long as a short name. False for every other packet,
 * and for what is malformed: those are read part by part.
 */
static __always_inline bool load_usual(struct __sk_buff *skb, struct scratch *s, __u32 limit)
{
	__u8 *ip = usual_headers(s);
	const __be16 *udp = (const __be16 *)(ip + IPV4_HEADER);
	__u32 bytes = skb->len, told;

	if (bytes < USUAL_HEADERS + HEADER_BYTES)
		return false;
	if (bytes > USUAL_HEADERS + limit)
		bytes = USUAL_HEADERS + limit;
	if (!load_bytes(skb, 0, ip, bytes))
		return false;
	if (ip[0] != (4 << 4 | IPV4_HEADER / 4) || ip[9] != IPPROTO_UDP ||
	    *(const __be16 *)(ip + 6) & bpf_htons(0x1fff))
		return false;
	told = bpf_ntohs(udp[2]);
	if (told < UDP_HEADER + HEADER_BYTES || IPV4_HEADER + told > skb->len)
		return false;
	told -= UDP_HEADER;
	s->message_bytes = told < limit ? told : limit;
	return true;
}

static __always_inline __u16 message_u16(const struct scratch *s, __u32 position)
{
	return bpf_ntohs(*(__be16 *)(s->message + (position & MESSAGE_MAX)));
}

/*
 * Reads the only question; its name is then the one that was read last, and its text is at place 0.
 */
static __always_inline bool read_question(struct scratch *s, struct question *question)
{
	__u32 end = read_first_name(s), key = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &key);

	if (!set || end == 0 || end + QUESTION_TAIL > s->message_bytes)
		return false;
	question->type = message_u16(s, end);
	question->class = message_u16(s, end + 2);
	question->end = end + QUESTION_TAIL;
	question->hash = mix(set, s->hash, (__u64)question->type << 16 | question->class);
	if (question->hash == 0)
		question->hash = 1;
	return true;
}

/* Addresses that no name may stand for, against rebinding: who needs one writes a CIDR rule. */
static __always_inline bool is_special_ipv4(const __u8 *bytes)
{
	__u32 address = bpf_ntohl(*(const __u32 *)bytes);

	return address >> 24 == 0 || address >> 24 == 127 || address >> 16 == (169 << 8 | 254) ||
	       address >> 28 == 14 || address == ~0U;
}

static __always_inline bool is_special_ipv6(const __u8 *bytes)
{
	const __u64 *halves = (const __u64 *)bytes;
	__u64 low = halves[1];

	if (bytes[0] == 0xff || (bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80))
		return true;
	if (halves[0] != 0)
		return false;
	return low == 0 || low == bpf_cpu_to_be64(1) || (__u32)low == bpf_htonl(0xffff);
}

/* Appends the name that was read last, whose text is at the chain's next place. */
static __always_inline int append_to_chain(struct scratch *s, __u32 position)
{
	__u32 index = s->chain_names;

	if (index >= CHAIN_MAX)
		return -1;
	s->chain[index].hash = s->hash;
	s->chain[index].position = position;
	s->chain[index].bytes = s->bytes;
	s->chain_names = index + 1;
	for (__u32 generation = 0; generation < GENERATIONS; generation++) {
		if (s->generations & 1 << generation)
			match_name(s, index, generation);
	}
	return 0;
}

/* The place of a name on the chain, from 1; 0: it is not on it. */
static __always_inline __u32 find_on_chain(const struct scratch *s, __u64 hash)
{
	for (__u32 i = 0; i < CHAIN_MAX; i++) {
		if (i >= s->chain_names)
			return 0;
		if (s->chain[i].hash == hash)
			return i + 1;
	}
	return 0;
}

/*
 * Reads a record's owner into s->owner; gives the position behind it, or 0. Most owners are a
 * pointer to the question, or to the name that the record before spoke of: those are known by
 * position.
 */
static __always_inline __u32 read_owner(struct scratch *s, __u32 position)
{
	__u32 pointer, end;

	if (position + 2 > s->message_bytes)
		return 0;
	pointer = message_u16(s, position);
	if (pointer == (POINTER | HEADER_BYTES)) {
		s->owner = 1;
		s->owner_position = HEADER_BYTES;
		return position + 2;
	}
	if (pointer >= POINTER && (pointer & ~POINTER) == s->owner_position)
		return position + 2;
	end = read_name(s, position, NAME_SPARE);
	if (end == 0)
		return 0;
	s->owner = find_on_chain(s, s->hash);
	s->owner_position = pointer >= POINTER ? pointer & ~POINTER : NO_POSITION;
	return end;
}

static __always_inline void lower_ttl(struct scratch *s, __u32 ttl)
{
	if (ttl & TTL_SIGN)
		ttl = 0;
	if (ttl < s->min_ttl)
		s->min_ttl = ttl;
}

/* Reads a CNAME's target. Gives a fault, or 0. */
static __always_inline enum counter read_alias(struct scratch *s, __u32 data, __u32 end, __u32 ttl)
{
	__u32 owner = s->owner, names = s->chain_names;

	if ((__u32)read_name(s, data, names) != end)
		return COUNTER_MALFORMED;
	if (owner == 0) {
		s->skipped = 1;
		return 0;
	}
	lower_ttl(s, ttl);
	if (owner < names) /* said before: then it must say the same */
		return s->chain[owner & (CHAIN_MAX - 1)].hash == s->hash ? 0 : COUNTER_MALFORMED;
	if (find_on_chain(s, s->hash))
		return COUNTER_MALFORMED;
	if (append_to_chain(s, data))
		return COUNTER_CHAIN_TOO_LONG;
	s->owner = names + 1;
	s->owner_position = data;
	s->grown = s->skipped;
	return 0;
}

static __always_inline __u64 digest_address(const struct answer_address *address)
{
	__u32 key = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &key);
	const __u64 *halves = (const __u64 *)address->address.bytes;

	return set ? mix(set, mix(set, address->names, halves[0]), halves[1]) : 0;
}

/* Adds the address of `bytes` bytes, 4 or 16, at a position to those that the owner has. */
static __always_inline void add_address(struct scratch *s, __u32 position, __u32 bytes, __u32 ttl)
{
	__u8 *from = s->message + (position & MESSAGE_MAX);
	struct answer_address *to;

	if (bytes == 4 ? is_special_ipv4(from) : is_special_ipv6(from)) {
		s->special++;
		return;
	}
	if (s->addresses >= s->addresses_limit || s->addresses >= ANSWER_ADDRESSES) {
		s->over_limit++;
		return;
	}
	lower_ttl(s, ttl);
	to = &s->event_addresses[s->addresses];
	if (bytes == 4)
		map_ipv4(&to->address, from);
	else
		__builtin_memcpy(&to->address, from, sizeof(to->address));
	to->names = s->owner;
	s->addresses++;
	s->addresses_digest += digest_address(to);
}

/* Reads the address of an A or AAAA record. Gives a fault, or 0. */
static __always_inline enum counter read_address(struct scratch *s, __u32 data, __u32 bytes,
						 __u32 wanted, __u32 ttl)
{
	if (bytes != wanted)
		return COUNTER_MALFORMED;
	if (s->owner == 0)
		s->skipped = 1;
	else
		add_address(s, data, wanted, ttl);
	return 0;
}

struct walk {
	struct scratch *s;
};

static long walk_hint(__u32 index, struct walk *walk)
{
	struct service *service = &walk->s->service;

	(void)index;
	add_address(walk->s, service->at, service->hint_size, service->ttl);
	service->at += service->hint_size;
	return 0;
}

static long walk_parameter(__u32 index, struct walk *walk)
{
	struct service *service = &walk->s->service;
	__u32 at = service->at, key, bytes, size, next;

	(void)index;
	if (at == service->end)
		return 1;
	service->fault = true;
	if (at + 4 > service->end)
		return 1;
	key = message_u16(walk->s, at);
	bytes = message_u16(walk->s, at + 2);
	next = at + 4 + bytes;
	if (key < service->least || next > service->end)
		return 1;
	service->least = key + 1;
	if (key == PARAM_IPV4HINT || key == PARAM_IPV6HINT) {
		size = key == PARAM_IPV4HINT ? 4 : 16;
		if (bytes == 0 || bytes & (size - 1))
			return 1;
		service->hint_size = size;
		service->at = at + 4;
		if (walk->s->owner)
			bpf_loop(bytes / size, walk_hint, walk, 0);
	}
	service->at = next;
	service->fault = false;
	return 0;
}

/* The position behind a name that may not be compressed, all of it before `end`; 0 if it is not so.
 */
static __always_inline __u32 skip_plain_name(const struct scratch *s, __u32 at, __u32 end)
{
	__u32 begin = at;

	for (int i = 0; i <= LABELS_MAX; i++) {
		__u32 length;

		if (at >= end)
			return 0;
		length = s->message[at & MESSAGE_MAX];
		if (length > LABEL_MAX || at + 1 + length - begin > NAME_MAX_BYTES)
			return 0;
		at += 1 + length;
		if (length == 0)
			return at > end ? 0 : at;
	}
	return 0;
}

/*
 * Reads the address hints of an HTTPS or SVCB record, in service mode (RFC 9460, 2.2); an alias has
 * no parameters that count. Gives a fault, or 0.
 */
static __always_inline enum counter read_service(struct scratch *s, __u32 data, __u32 end,
						 __u32 ttl)
{
	struct walk walk = {.s = s};

	if (data + 2 > end)
		return COUNTER_MALFORMED;
	s->service = (struct service){.end = end, .ttl = ttl};
	s->service.at = skip_plain_name(s, data + 2, end);
	if (s->service.at == 0)
		return COUNTER_MALFORMED;
	if (s->owner == 0)
		s->skipped = 1;
	if (message_u16(s, data) == 0)
		return 0;
	/* A parameter has 4 bytes at least; one turn more, for the end. */
	bpf_loop((end - s->service.at) / 4 + 1, walk_parameter, &walk, 0);
	return s->service.fault || s->service.at != end ? COUNTER_MALFORMED : 0;
}

/* Reads the record at s->position. Gives a fault, or 0. */
__attribute__((noinline)) int read_record(struct scratch *s)
{
	__u32 head, data, end, bytes, ttl, type;

	if (!s)
		return COUNTER_MALFORMED;
	head = read_owner(s, s->position);
	data = head + RECORD_HEAD;
	if (head == 0 || data > s->message_bytes)
		return COUNTER_MALFORMED;
	type = message_u16(s, head);
	ttl = (__u32)message_u16(s, head + 4) << 16 | message_u16(s, head + 6);
	bytes = message_u16(s, head + 8);
	end = data + bytes;
	if (end > s->message_bytes)
		return COUNTER_MALFORMED;
	s->position = end;
	if (message_u16(s, head + 2) != CLASS_IN)
		return 0;
	switch (type) {
	case TYPE_A:
		return read_address(s, data, bytes, 4, ttl);
	case TYPE_AAAA:
		return read_address(s, data, bytes, 16, ttl);
	case TYPE_CNAME:
		return read_alias(s, data, end, ttl);
	case TYPE_SVCB:
	case TYPE_HTTPS:
		return read_service(s, data, end, ttl);
	}
	return 0;
}

/*
 * Reads the record at s->position if it is as most are: an address of the name asked, which a
 * pointer names. Gives whether it is.
 */
static __always_inline bool read_usual_record(struct scratch *s)
{
	__u32 at = s->position & MESSAGE_MAX, data = at + 2 + RECORD_HEAD;
	const __u8 *record = s->message + at;

	if (data + 4 > s->message_bytes ||
	    *(const __be16 *)record != bpf_htons(POINTER | HEADER_BYTES) ||
	    *(const __be32 *)(record + 2) != bpf_htonl(TYPE_A << 16 | CLASS_IN) ||
	    *(const __be16 *)(record + RECORD_HEAD) != bpf_htons(4))
		return false;
	s->owner = 1;
	s->owner_position = HEADER_BYTES;
	s->position = data + 4;
	add_address(s, data, 4, bpf_ntohl(*(const __be32 *)(record + 6)));
	return true;
}

static long walk_record(__u32 index, struct walk *walk)
{
	struct scratch *s = walk->s;

	if (index >= s->records)
		return 1;
	if (read_usual_record(s))
		return 0;
	s->fault = read_record(s);
	return s->fault != 0;
}

/*
 * Reads the answer section behind `position`. Records may come in any order: when a name joins the
 * chain after records were passed over, these may have been its own, and the walk begins anew; each
 * time the chain is longer. Gives a fault, or 0; then chain, addresses and min_ttl are what it
 * says.
 */
static __always_inline enum counter read_answers(struct scratch *s, __u32 position, __u32 records)
{
	struct walk walk = {.s = s};

	s->records = records;
	for (int i = 0; i < CHAIN_MAX; i++) {
		s->position = position;
		s->fault = 0;
		s->owner_position = NO_POSITION;
		s->skipped = 0;
		s->grown = 0;
		s->addresses = 0;
		s->addresses_digest = 0;
		s->special = 0;
		s->over_limit = 0;
		s->min_ttl = ~TTL_SIGN;
		bpf_loop(records, walk_record, &walk, 0);
		if (s->fault || !s->grown)
			break;
	}
	return s->fault;
}
