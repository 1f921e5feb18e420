//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * For benchmarks: a response answers its question once, so that a second run of the same packet
 * would only see a duplicate. Here the question is asked again before each run.
 */
#include "dns_response.bpf.c"

static __always_inline void ask_again(struct __sk_buff *skb)
{
	struct query_key key = {.protocol = IPPROTO_UDP};
	__u64 now_ns = bpf_ktime_get_boot_ns();
	struct asker asker;
	__u8 bytes[4];

	bpf_skb_load_bytes(skb, 16, bytes, sizeof(bytes));
	map_ipv4(&key.client, bytes);
	bpf_skb_load_bytes(skb, IPV4_HEADER + 2, &key.port, sizeof(key.port));
	bpf_skb_load_bytes(skb, IPV4_HEADER + UDP_HEADER, &key.id, sizeof(key.id));
	if (!find_asker(&key, &asker))
		return;
	for (int i = 0; i < 3; i++) {
		struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &asker.buckets[i]);

		for (int slot = 0; bucket && slot < QUESTION_SLOTS; slot++) {
			if (bucket->slots[slot].asker == asker.hash && bucket->state[slot])
				bucket->state[slot] =
					now_ns >> STATE_TIME_UNIT << STATE_TIME_SHIFT | asker.tag;
		}
	}
}

SEC("socket")
int hot_nothing(struct __sk_buff *skb)
{
	ask_again(skb);
	return 0;
}

SEC("socket")
int hot_response(struct __sk_buff *skb)
{
	ask_again(skb);
	return respond(skb);
}

SEC("socket")
int empty(struct __sk_buff *skb)
{
	(void)skb;
	return 0;
}

char _license[] SEC("license") = "GPL";
