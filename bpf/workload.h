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

/*
 * Gives the place of an address in hosts: cell and slot as one number, from 1 on; 0: it is not
 * there. Verified once, by itself.
 */
__attribute__((noinline)) int find_host(const struct address *address, __u32 generation, __u32 seed,
					__u32 bits)
{
	enum cell_role role = CELL_HOME;
	const __u64 *wanted;
	__u32 at;

	if (!address)
		return 0;
	wanted = (const __u64 *)address->bytes;
	at = home_of_host(generation, seed, bits, address);
	for (int cell = 0; cell < HOST_CHAIN; cell++) {
		struct host_cell *host = bpf_map_lookup_elem(&hosts, &at);

		if (!host || host->role != role)
			return 0;
		for (__u32 slot = 0; slot < HOST_SLOTS; slot++) {
			const __u64 *words = (const __u64 *)host->addresses[slot].bytes;

			if (slot < host->count && words[0] == wanted[0] && words[1] == wanted[1])
				return at * HOST_SLOTS + slot + 1;
		}
		at = host->next;
		if (!at)
			return 0;
		role = CELL_AWAY;
	}
	return 0;
}

/* The class of a source that is named by its whole address. NULL: it is not. */
static __always_inline struct source_class *
class_of_host(const struct generation_flags *whole, __u32 generation, const struct address *address)
{
	__u32 place = find_host(address, generation, whole->seed, whole->host_bits);
	struct host_cell *host;
	__u32 at;

	if (!place)
		return NULL;
	at = (place - 1) / HOST_SLOTS;
	host = bpf_map_lookup_elem(&hosts, &at);
	return host ? &host->classes[(place - 1) % HOST_SLOTS] : NULL;
}

/*
 * The class of a source: that of the address itself, or of its longest prefix. NULL: it has none.
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
