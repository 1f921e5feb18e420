//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * A baseline: what is usually written first. The least parser of DNS responses that can be, with an
 * LPM trie of reversed names for patterns, and a map of sets that is scanned for each address to
 * find those whose patterns the name matched. It asks for no query, follows no chain, checks no
 * owner and forgets nothing, and is the faster for it.
 */
#include <linux/bpf.h>
#include <linux/types.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define IPV4_HEADER 20
#define MESSAGE (IPV4_HEADER + 8)
#define QUESTION (MESSAGE + 12)
#define NAME_BYTES 255
#define RECORD_HEAD 12 /* with a pointer for a name */
#define TYPE_A bpf_htons(1)

/* A name from its last letter to its first, then a zero: `moc.elpmaxe`. */
struct reversed_name {
	__u32 bits; /* of the name that count */
	__u8 name[NAME_BYTES + 1];
};

struct learned {
	__u32 set;
	__be32 address;
};

struct work {
	struct reversed_name key;
	__u8 question[NAME_BYTES + 1];
	__u8 text[NAME_BYTES + 1]; /* the name with a dot before each label */
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct reversed_name);
	__type(value, __u32); /* group of sets that have the pattern */
} lpm_names SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, __u32);   /* set */
	__type(value, __u32); /* group */
} lpm_sets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct learned);
	__type(value, __u64); /* boot clock, when it ends */
} lpm_learned SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct work);
} lpm_work SEC(".maps");

/* Where the walk over the records is, and what it learns. */
struct answer {
	struct __sk_buff *skb;
	__u32 offset;
	__u32 group;
	__be32 address;
	__u64 now_ns;
	__u64 ends_ns;
};

/* Reads the name of the question, lower-cased; gives its bytes in text form with the dot before it,
 * or 0. */
static __always_inline __u32 read_text(struct work *work)
{
	__u32 label = 0;

	for (__u32 i = 0; i < NAME_BYTES; i++) {
		__u8 byte = work->question[i];

		if (i == label) {
			if (byte == 0)
				return i;
			if (byte > 63)
				return 0;
			label = i + 1 + byte;
			byte = '.';
		} else if (byte >= 'A' && byte <= 'Z') {
			byte |= 0x20;
		}
		work->text[i] = byte;
	}
	return 0;
}

static __always_inline void reverse(struct work *work, __u32 bytes)
{
	for (__u32 i = 0; i < NAME_BYTES; i++) {
		if (i + 1 >= bytes) {
			work->key.name[i] = 0;
			break;
		}
		work->key.name[i] = work->text[(bytes - 1 - i) & NAME_BYTES];
	}
	work->key.bits = bytes * 8;
}

static long learn_for_set(void *map, const __u32 *set, const __u32 *group, struct answer *answer)
{
	struct learned key = {.set = *set, .address = answer->address};

	(void)map;
	if (*group == answer->group)
		bpf_map_update_elem(&lpm_learned, &key, &answer->ends_ns, BPF_ANY);
	return 0;
}

static long learn_record(__u32 index, struct answer *answer)
{
	struct {
		__be16 name, type, class;
		__be16 ttl[2];
		__be16 bytes;
	} head;

	(void)index;
	if (bpf_skb_load_bytes(answer->skb, answer->offset, &head, RECORD_HEAD))
		return 1;
	if ((head.name & bpf_htons(0xc000)) != bpf_htons(0xc000))
		return 1;
	answer->offset += RECORD_HEAD;
	if (head.type == TYPE_A && head.bytes == bpf_htons(4)) {
		__u64 ttl = (__u64)bpf_ntohs(head.ttl[0]) << 16 | bpf_ntohs(head.ttl[1]);

		if (bpf_skb_load_bytes(answer->skb, answer->offset, &answer->address, 4))
			return 1;
		answer->ends_ns = answer->now_ns + ttl * 1000000000;
		bpf_for_each_map_elem(&lpm_sets, learn_for_set, answer, 0);
	}
	answer->offset += bpf_ntohs(head.bytes);
	return 0;
}

SEC("socket")
int lpm_response(struct __sk_buff *skb)
{
	struct answer answer = {.skb = skb};
	__u32 zero = 0, bytes = skb->len, *group;
	struct work *work = bpf_map_lookup_elem(&lpm_work, &zero);
	__be16 records;

	if (!work || bytes <= QUESTION || bpf_skb_load_bytes(skb, MESSAGE + 6, &records, 2))
		return 0;
	bytes -= QUESTION;
	if (bytes > NAME_BYTES)
		bytes = NAME_BYTES;
	if (bytes == 0 || bpf_skb_load_bytes(skb, QUESTION, work->question, bytes))
		return 0;
	bytes = read_text(work);
	if (bytes == 0)
		return 0;
	reverse(work, bytes);
	group = bpf_map_lookup_elem(&lpm_names, &work->key);
	if (!group)
		return 0;
	answer.group = *group;
	answer.now_ns = bpf_ktime_get_boot_ns();
	answer.offset = QUESTION + bytes + 5; /* its root label, type and class */
	bpf_loop(bpf_ntohs(records), learn_record, &answer, 0);
	return 0;
}

char _license[] SEC("license") = "GPL";
