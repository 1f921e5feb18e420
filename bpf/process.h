/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Which process of the node sends a packet: its user and its control groups, as its socket has them
 * since it was made. Names of control groups are compared here and not by the agent, so that a
 * group that is made while the agent is dead is known with its first packet.
 */
#pragma once

#include "count.h"
#include "scratch.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>
#include <stdbool.h>

#define SOCKET_TIME_WAIT 6 /* TCP_TIME_WAIT */
#define SOCKET_REQUEST 12  /* TCP_NEW_SYN_RECV */
#define SLICE_SUFFIX ".slice"
#define SLICE_SUFFIX_BYTES 6

/* What is known of who opens a connection. */
enum identity {
	IDENTITY_KNOWN,
	IDENTITY_UNKNOWN_INTERFACE, /* one that the agent has not told about yet */
	IDENTITY_UNKNOWN_CGROUP,    /* one that cannot be told, or has no path */
	IDENTITY_TOO_MANY_CGROUPS,  /* policies select more groups around it than there is room */
};

/*
 * The kernel's own structs, as far as they are read. Where the fields are, the loader looks up in
 * the BTF of the kernel.
 */
#define OF_THE_KERNEL __attribute__((preserve_access_index))

struct kernfs_node {
	const char *name;
	__u64 id;
} OF_THE_KERNEL;

struct cgroup {
	int level;
	struct kernfs_node *kn;
	struct cgroup *ancestors[];
} OF_THE_KERNEL;

struct sock_cgroup_data {
	struct cgroup *cgroup;
} OF_THE_KERNEL;

struct sock {
	struct sock_cgroup_data sk_cgrp_data;
} OF_THE_KERNEL;

struct sk_buff {
	struct sock *sk;
} OF_THE_KERNEL;

static __always_inline __u64 read_word(const void *at)
{
	__u64 word = 0;

	bpf_probe_read_kernel(&word, sizeof(word), at);
	return word;
}

/* The kernel's pointer to the group of the packet's socket; 0: it cannot be read. */
static __always_inline __u64 read_cgroup(struct __sk_buff *skb)
{
	struct sk_buff *packet = (struct sk_buff *)skb;
	struct sock *socket = (struct sock *)read_word(&packet->sk);

	/* Not in a kernel that was built without: of these programs it takes the rest. */
	if (!bpf_core_field_exists(socket->sk_cgrp_data))
		return 0;
	return socket ? read_word(&socket->sk_cgrp_data.cgroup) : 0;
}

static __always_inline __u64 read_id(struct kernfs_node *node)
{
	return read_word(&node->id);
}

static __always_inline struct kernfs_node *read_node(__u64 cgroup)
{
	return (struct kernfs_node *)read_word(&((struct cgroup *)cgroup)->kn);
}

static __always_inline __u64 read_ancestor(__u64 cgroup, __u32 level)
{
	return read_word((void *)&((struct cgroup *)cgroup)->ancestors[0] + 8 * level);
}

/*
 * Whether a process of the node sends the packet, and not the kernel: what answers for a connection
 * that is being opened or was closed has no more than a part of a socket.
 */
static __always_inline bool of_process(struct __sk_buff *skb)
{
	const struct bpf_sock *socket = skb->sk;

	return socket && socket->state != SOCKET_TIME_WAIT && socket->state != SOCKET_REQUEST;
}

static __always_inline void add_class(struct cgroup_walk *walk, __u32 class)
{
	struct cgroup_classes *classes = &walk->found.classes;
	__u32 count = classes->count;

	if (class == 0 || count > CGROUP_CLASSES)
		return;
	if (count < CGROUP_CLASSES)
		classes->class[count] = class;
	classes->count = count + 1;
}

static __always_inline void add_pair(struct cgroup_walk *walk, __u32 path, __u32 unit)
{
	struct cgroup_pair pair = {
		.generation = walk->key.generation,
		.path = path,
		.unit = unit,
	};
	const __u32 *class = bpf_map_lookup_elem(&cgroup_pairs, &pair);

	if (class)
		add_class(walk, *class);
}

/* Takes up that the process is in a group that workloads name by its path. */
static __always_inline void take_path(struct cgroup_walk *walk, const struct cgroup_node *node)
{
	__u32 count = walk->paths;

	add_class(walk, node->class);
	if (node->part == 0)
		return;
	if (count >= CGROUP_PARTS) {
		walk->too_many = 1;
		return;
	}
	walk->path[count] = node->part;
	walk->paths = count + 1;
	for (__u32 i = 0; i < CGROUP_PARTS; i++) {
		if (i >= walk->units)
			break;
		add_pair(walk, node->part, walk->unit[i]);
	}
}

/* The same of a unit. */
static __always_inline void take_unit(struct cgroup_walk *walk, const struct cgroup_node *node)
{
	__u32 count = walk->units;

	add_class(walk, node->class);
	if (node->part == 0)
		return;
	if (count >= CGROUP_PARTS) {
		walk->too_many = 1;
		return;
	}
	walk->unit[count] = node->part;
	walk->units = count + 1;
	for (__u32 i = 0; i < CGROUP_PARTS; i++) {
		if (i >= walk->paths)
			break;
		add_pair(walk, walk->path[i], node->part);
	}
}

static __always_inline bool is_slice(const struct cgroup_walk *walk, __u32 bytes)
{
	const char suffix[] = SLICE_SUFFIX;

	if (bytes <= SLICE_SUFFIX_BYTES)
		return false;
	for (__u32 i = 0; i < SLICE_SUFFIX_BYTES; i++) {
		__u32 at = (bytes - SLICE_SUFFIX_BYTES + i) & (CGROUP_NAME - 1);

		if (walk->key.name[at] != suffix[i])
			return false;
	}
	return true;
}

/* Looks the group up whose name was read, by its path and as a unit. */
static __always_inline void take_name(struct cgroup_walk *walk, __u32 bytes)
{
	const struct cgroup_node *node;

	if (walk->node) {
		walk->key.parent = walk->node;
		node = bpf_map_lookup_elem(&cgroups, &walk->key);
		walk->node = node ? node->node : 0;
		if (node)
			take_path(walk, node);
	}
	if (!walk->slices)
		return;
	walk->key.parent = CGROUP_UNIT;
	node = bpf_map_lookup_elem(&cgroups, &walk->key);
	if (node)
		take_unit(walk, node);
	/*
	 * Below a unit that is no slice, names are that unit's own business: whom it was delegated
	 * to may give any.
	 */
	walk->slices = is_slice(walk, bytes);
}

static __always_inline void take_root(struct cgroup_walk *walk)
{
	const struct cgroup_node *node;

	walk->below = 1;
	walk->slices = 1;
	walk->key.parent = CGROUP_UNIT;
	node = bpf_map_lookup_elem(&cgroups, &walk->key);
	if (!node)
		return;
	walk->node = node->node;
	take_path(walk, node);
}

enum step { STEP_ON, STEP_DONE, STEP_UNREADABLE };

/*
 * Goes one level down, in the scratch of that index: a name is a key, and on Linux 6.1 a key has to
 * be in a map or on the stack. Gives an enum step; verified once, by itself.
 */
__attribute__((noinline)) int take_level(__u32 index, __u32 level)
{
	enum scratch_limit key = index;
	struct scratch *s = bpf_map_lookup_elem(&scratch, &key);
	struct kernfs_node *node;
	struct cgroup_walk *walk;
	long bytes;

	if (!s)
		return STEP_UNREADABLE;
	walk = &s->walk;
	if ((__s32)level > walk->level || (walk->below && !walk->node && !walk->slices))
		return STEP_DONE;
	node = read_node(read_ancestor(walk->cgroup, level));
	if (!walk->below) {
		if (read_id(node) == walk->root)
			take_root(walk);
		return STEP_ON;
	}
	__builtin_memset(walk->key.name, 0, sizeof(walk->key.name));
	bytes = bpf_probe_read_kernel_str(walk->key.name, sizeof(walk->key.name),
					  (void *)read_word(&node->name));
	if (bytes <= 1)
		return STEP_UNREADABLE;
	take_name(walk, bytes - 1);
	return STEP_ON;
}

/* Finds the classes of a control group by the names on its path. */
static __always_inline enum identity walk_to(struct scratch *s, __u64 cgroup)
{
	struct cgroup_walk *walk = &s->walk;
	enum step step = STEP_ON;

	walk->cgroup = cgroup;
	if (bpf_probe_read_kernel(&walk->level, sizeof(walk->level),
				  &((struct cgroup *)cgroup)->level))
		return IDENTITY_UNKNOWN_CGROUP;
	for (__u32 i = 0; i < CGROUP_LEVELS && step == STEP_ON; i++)
		step = take_level(s->index, i);
	if (step == STEP_UNREADABLE)
		return IDENTITY_UNKNOWN_CGROUP;
	/* Deeper than anyone needs, or outside of the agent's namespace. */
	if (!walk->below || (walk->level >= CGROUP_LEVELS && (walk->node || walk->slices)))
		return IDENTITY_UNKNOWN_CGROUP;
	if (walk->too_many)
		walk->found.classes.count = CGROUP_CLASSES + 1;
	return IDENTITY_KNOWN;
}

static __always_inline __u64 mix_seal(__u64 seal, __u64 word)
{
	seal = (seal ^ word) * 0x9e3779b97f4a7c15ULL;
	return seal ^ seal >> 29;
}

/*
 * The kernel gives the place of an entry that was not used for long to another key, also while it
 * is read.
 */
static __always_inline __u64 seal_of(const struct cgroup_known_key *key,
				     const struct cgroup_classes *classes)
{
	const __u64 *words = (const __u64 *)classes;
	__u64 seal = mix_seal(mix_seal(1, key->epoch), key->cgroup);

	for (__u32 i = 0; i < sizeof(*classes) / sizeof(*words); i++)
		seal = mix_seal(seal, words[i]);
	return seal;
}

/* Walks to a control group that is not known yet, and makes it known. */
static __always_inline enum identity learn_cgroup(__u64 cgroup, __u64 root, __u32 generation,
						  const struct cgroup_known_key *key,
						  struct cgroup_classes *classes)
{
	struct scratch *s = claim_scratch();
	enum identity identity;

	if (!s) {
		count(COUNTER_BUSY);
		return IDENTITY_UNKNOWN_CGROUP;
	}
	__builtin_memset(&s->walk, 0, sizeof(s->walk));
	s->walk.root = root;
	s->walk.key.generation = generation;
	identity = walk_to(s, cgroup);
	if (identity == IDENTITY_KNOWN) {
		*classes = s->walk.found.classes;
		s->walk.found.seal = seal_of(key, classes);
		bpf_map_update_elem(&cgroups_known, key, &s->walk.found, BPF_ANY);
	}
	release_scratch(s);
	return identity;
}

/* Finds the classes of the control groups that the packet's socket is in. */
static __always_inline enum identity find_classes(struct __sk_buff *skb, __u32 generation,
						  struct cgroup_classes *classes)
{
	const struct cgroup_table *table = bpf_map_lookup_elem(&cgroup_tables, &generation);
	__u64 cgroup = read_cgroup(skb);
	const struct cgroup_known *known;
	struct cgroup_known_key key;

	if (!table || !cgroup)
		return IDENTITY_UNKNOWN_CGROUP;
	key.epoch = table->epoch;
	key.cgroup = read_id(read_node(cgroup));
	if (!key.cgroup)
		return IDENTITY_UNKNOWN_CGROUP;
	known = bpf_map_lookup_elem(&cgroups_known, &key);
	if (known) {
		*classes = known->classes;
		if (known->seal == seal_of(&key, classes))
			return IDENTITY_KNOWN;
	}
	return learn_cgroup(cgroup, table->root, generation, &key, classes);
}
