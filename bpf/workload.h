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

/* The class of a source: that of the address itself, or of its longest prefix. NULL: it has none.
 */
static __always_inline struct source_class *find_source(__u32 generation,
							const struct address *address, __u32 flags)
{
	struct host_key key = {.generation = generation, .address = *address};
	struct source_class *source;

	if (flags & GENERATION_HOSTS) {
		source = bpf_map_lookup_elem(&hosts, &key);
		if (source)
			return source;
	}
	return flags & GENERATION_SOURCES ? find_prefix(&sources, generation, address) : NULL;
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
	struct source_class *source = find_source(key.generation, &packet->source, whole->flags);
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
