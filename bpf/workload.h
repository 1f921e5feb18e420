/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Who sends a packet: the classes by which policies select it. */
#pragma once

#include "packet.h"
#include "maps.h"

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

/* Finds who opens the connection. False: by an interface that the agent has not told about yet. */
static __always_inline bool identify(struct __sk_buff *skb, const struct packet *packet,
				     __u32 flags, struct workload_key *key)
{
	__u32 ifindex = skb->ifindex;
	struct interface_classes *classes;

	if (key->origin == ORIGIN_LOCAL)
		return true;
	if (flags & GENERATION_SOURCES)
		key->source = classify(&sources, key->generation, &packet->source);
	if (flags & GENERATION_INTERFACES) {
		classes = bpf_map_lookup_elem(&interfaces, &ifindex);
		if (!classes)
			return false;
		key->interface = classes->class[key->generation & (GENERATIONS - 1)];
	}
	return true;
}
