/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who sends a packet: the classes by which policies select it. */
#pragma once

#include "packet.h"
#include "process.h"
#include "verdict.h"

/* One before the classes, and one at most for each, in place of it. */
_Static_assert(CONNECTION_WORKLOADS == CGROUP_CLASSES + 1,
	       "a connection has room for all of its workloads");

static __always_inline void *find_prefix(void *prefixes, __u32 generation,
					 const struct address *address)
{
	struct prefix_key key = {
		.prefixlen = 8 * (sizeof(key) - offsetof(struct prefix_key, generation)),
		.generation = generation,
		.address = *address,
	};

	return bpf_map_lookup_elem(prefixes, &key);
}

/* The first bits of a word of an address: at most 64. */
static __always_inline __u64 first_bits(__u64 word, __u32 bits)
{
	return bits ? word & bpf_cpu_to_be64(~0ULL << (64 - bits)) : 0;
}

/*
 * The family that a source is looked for in: IPv4, whatever header has the address. NULL: it is far
 * from all sources in hosts.
 */
static __always_inline const struct source_family *family_of(const struct generation_flags *whole,
							     const struct address *address)
{
	const __u64 *words = (const __u64 *)address->bytes;
	const struct source_family *family = &whole->ipv6;
	__u64 word = words[0];

	if (!(words[0] | (first_bits(words[1], 32) ^ bpf_cpu_to_be64(0xffffULL << 32)))) {
		family = &whole->ipv4;
		word = words[1];
	}
	return first_bits(word, family->bits) == family->word ? family : NULL;
}

/* A prefix that is looked for in hosts. */
struct host_search {
	__u64 words[2];
	__u32 length; /* as host_cell has it */
};

static __always_inline void search_for_prefix(struct host_search *search,
					      const struct address *address, __u32 length)
{
	const __u64 *words = (const __u64 *)address->bytes;
	__u32 bits = length - 1;

	search->words[0] = bits < 64 ? first_bits(words[0], bits) : words[0];
	search->words[1] = bits > 64 ? first_bits(words[1], bits - 64) : 0;
	search->length = length;
}

static __always_inline bool holds(const struct host_cell *host, __u32 slot,
				  const struct host_search *search)
{
	const __u64 *words = (const __u64 *)host->addresses[slot].bytes;

	return !((words[0] ^ search->words[0]) | (words[1] ^ search->words[1]) |
		 (host->lengths[slot] ^ search->length));
}

_Static_assert(HOST_SLOTS == 2, "slot_of looks at every slot");

/* The slot of the prefix in a cell, from 1 on; 0: it is not there. */
static __always_inline __u32 slot_of(const struct host_cell *host, const struct host_search *search)
{
	if (holds(host, 0, search))
		return 1;
	return holds(host, 1, search) ? 2 : 0;
}

/*
 * The place of a prefix in the cells behind its home, from `at` on, as find_host has it. Verified
 * once, by itself.
 */
__attribute__((noinline)) int find_away(const struct host_search *search, __u32 at)
{
	if (!search)
		return 0;
	for (int cell = 1; cell < HOST_CHAIN; cell++) {
		struct host_cell *host = bpf_map_lookup_elem(&hosts, &at);
		__u32 slot;

		if (!host || host->role != CELL_AWAY)
			return 0;
		slot = slot_of(host, search);
		if (slot)
			return at * HOST_SLOTS + slot;
		at = host->next;
		if (!at)
			return 0;
	}
	return 0;
}

/* The place of a prefix in hosts, as find_host has it. */
static __always_inline __u32 place_of(const struct host_search *search, __u32 home)
{
	struct host_cell *host = bpf_map_lookup_elem(&hosts, &home);
	__u32 slot;

	if (!host || host->role != CELL_HOME)
		return 0;
	slot = slot_of(host, search);
	if (slot)
		return home * HOST_SLOTS + slot;
	return host->next ? find_away(search, host->next) : 0;
}

/*
 * Gives the place in hosts of the longest prefix of an address that is there: cell and slot as one
 * number, from 1 on; 0: none is. Verified once, by itself.
 */
__attribute__((noinline)) int find_host(const struct address *address,
					const struct source_family *family,
					const struct generation_flags *whole, __u32 generation)
{
	struct host_search search;

	if (!address || !family || !whole)
		return 0;
	for (__u32 i = 0; i < SOURCE_LENGTHS && family->lengths[i]; i++) {
		__u32 place;

		search_for_prefix(&search, address, family->lengths[i]);
		place = place_of(&search, home_of_host(generation, whole->seed, whole->host_bits,
						       search.words, search.length));
		if (place)
			return place;
	}
	return 0;
}

/* The class of a source that has a prefix in hosts. NULL: it has none. */
static __always_inline struct source_class *
class_of_host(const struct generation_flags *whole, __u32 generation, const struct address *address)
{
	const struct source_family *family = family_of(whole, address);
	struct host_cell *host;
	__u32 place, at;

	if (!family)
		return NULL;
	place = find_host(address, family, whole, generation);
	if (!place)
		return NULL;
	at = (place - 1) / HOST_SLOTS;
	host = bpf_map_lookup_elem(&hosts, &at);
	return host ? &host->classes[(place - 1) % HOST_SLOTS] : NULL;
}

/*
 * The class of a source: that of its longest prefix. NULL: it has none. What is in hosts is longer
 * than what is in sources.
 */
static __always_inline struct source_class *
find_source(const struct generation_flags *whole, __u32 generation, const struct address *address)
{
	struct source_class *source;

	if (whole->flags & GENERATION_HOSTS) {
		source = class_of_host(whole, generation, address);
		if (source)
			return source;
	}
	return whole->flags & GENERATION_SOURCES ? find_prefix(&sources, generation, address)
						 : NULL;
}

static __always_inline enum identity identify_forwarded(struct __sk_buff *skb,
							const struct packet *packet,
							const struct generation_flags *whole,
							struct judgement *judgement)
{
	struct workload_key key = {
		.generation = judgement->generation,
		.origin = ORIGIN_FORWARDED,
	};
	struct source_class *source = find_source(whole, key.generation, &packet->source);
	__u32 ifindex = skb->ifindex;
	struct interface_classes *classes;

	if (whole->flags & GENERATION_INTERFACES) {
		classes = bpf_map_lookup_elem(&interfaces, &ifindex);
		if (!classes)
			return IDENTITY_UNKNOWN_INTERFACE;
		key.interface = classes->class[key.generation & (GENERATIONS - 1)];
	} else if (add_known(judgement,
			     source ? &source->workload : &whole->others[ORIGIN_FORWARDED])) {
		return IDENTITY_KNOWN;
	}
	if (source)
		key.source = source->class;
	add_workload(judgement, &key);
	return IDENTITY_KNOWN;
}

/* A key of a user and a class has what the class alone has too. */
static __always_inline void add_process(struct judgement *judgement, __u32 user, __u32 class)
{
	struct workload_key key = {
		.generation = judgement->generation,
		.origin = ORIGIN_LOCAL,
		.source = user,
		.interface = class,
	};

	if (user && add_workload(judgement, &key))
		return;
	key.source = 0;
	add_workload(judgement, &key);
}

/* The same, and counts why it cannot. */
static __always_inline enum identity classify_process(struct __sk_buff *skb, __u32 generation,
						      struct cgroup_classes *classes)
{
	enum identity identity = find_classes(skb, generation, classes);

	if (identity != IDENTITY_KNOWN) {
		count(COUNTER_UNKNOWN_CGROUP);
		classes->count = 0;
		return identity;
	}
	if (classes->count <= CGROUP_CLASSES)
		return IDENTITY_KNOWN;
	count(COUNTER_TOO_MANY_CGROUPS);
	return IDENTITY_TOO_MANY_CGROUPS;
}

/* Verified once, by itself. */
__attribute__((noinline)) int identify_process(struct __sk_buff *skb, __u32 flags,
					       struct judgement *judgement)
{
	enum identity identity = IDENTITY_KNOWN;
	__u32 user = 0, classes;

	if (!judgement)
		return IDENTITY_UNKNOWN_CGROUP;
	if (of_process(skb)) {
		if (flags & GENERATION_USERS)
			user = bpf_get_socket_uid(skb) + 1;
		if (flags & GENERATION_CGROUPS)
			identity =
				classify_process(skb, judgement->generation, &judgement->classes);
	}
	classes = judgement->classes.count;
	add_process(judgement, user, 0);
	for (__u32 i = 0; i < CGROUP_CLASSES; i++) {
		if (i >= classes)
			break;
		add_process(judgement, user, judgement->classes.class[i]);
	}
	/* What a policy in mode AUDIT cannot tell stops nothing. */
	return flags & GENERATION_CGROUPS_ENFORCED ? identity : IDENTITY_KNOWN;
}

static __always_inline enum identity identify_local(struct __sk_buff *skb,
						    const struct generation_flags *whole,
						    struct judgement *judgement)
{
	if (whole->flags & (GENERATION_USERS | GENERATION_CGROUPS))
		return identify_process(skb, whole->flags, judgement);
	if (!add_known(judgement, &whole->others[ORIGIN_LOCAL]))
		add_process(judgement, 0, 0);
	return IDENTITY_KNOWN;
}

/* Finds the workloads that the connection is of. */
static __always_inline enum identity identify(struct __sk_buff *skb, const struct packet *packet,
					      enum origin origin,
					      const struct generation_flags *whole,
					      struct judgement *judgement)
{
	if (origin == ORIGIN_LOCAL)
		return identify_local(skb, whole, judgement);
	return identify_forwarded(skb, packet, whole, judgement);
}
