/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who sends a packet: the classes by which policies select it. */
#pragma once

#include "packet.h"
#include "verdict.h"

static __always_inline __u32 classify(void *prefixes, __u32 generation,
				      const struct address *address)
{
	struct prefix_key key = {
		.prefixlen = 8 * (sizeof(key) - offsetof(struct prefix_key, generation)),
		.generation = generation,
		.address = *address,
	};
	__u32 *class = bpf_map_lookup_elem(prefixes, &key);

	return class ? *class : 0;
}

/* What is known of who opens a connection. */
enum identity {
	IDENTITY_KNOWN,
	IDENTITY_UNKNOWN_INTERFACE, /* one that the agent has not told about yet */
};

static __always_inline enum identity identify_forwarded(struct __sk_buff *skb,
							const struct packet *packet, __u32 flags,
							struct judgement *judgement)
{
	struct workload_key key = {
		.generation = judgement->generation,
		.origin = ORIGIN_FORWARDED,
	};
	__u32 ifindex = skb->ifindex;
	struct interface_classes *classes;

	if (flags & GENERATION_SOURCES)
		key.source = classify(&sources, key.generation, &packet->source);
	if (flags & GENERATION_INTERFACES) {
		classes = bpf_map_lookup_elem(&interfaces, &ifindex);
		if (!classes)
			return IDENTITY_UNKNOWN_INTERFACE;
		key.interface = classes->class[key.generation & (GENERATIONS - 1)];
	}
	add_workload(judgement, &key);
	return IDENTITY_KNOWN;
}

static __always_inline enum identity identify_local(struct judgement *judgement)
{
	struct workload_key key = {
		.generation = judgement->generation,
		.origin = ORIGIN_LOCAL,
	};

	add_workload(judgement, &key);
	return IDENTITY_KNOWN;
}

/* Finds the workloads that the connection is of. */
static __always_inline enum identity identify(struct __sk_buff *skb, const struct packet *packet,
					      enum origin origin, __u32 flags,
					      struct judgement *judgement)
{
	if (origin == ORIGIN_LOCAL)
		return identify_local(judgement);
	return identify_forwarded(skb, packet, flags, judgement);
}
