/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What the agent is told of answers, and what it was told last: an answer that says the same again
 * is not told anew each time. It is told once too often where many questions share a bucket.
 */
#pragma once

#include "count.h"
#include "dns.h"
#include "word.h"

#define CONTENT_QUESTION ((1ULL << ANSWER_QUESTION_BITS) - 1)
#define CONTENT_WRITING 1ULL
#define TIMES_UNTOLD ((1ULL << ANSWER_UNTOLD_BITS) - 1)

/* A digest of names and addresses that does not depend on the order of the addresses. */
static __always_inline __u64 digest_answer(const struct scratch *s, const struct settings *set)
{
	__u64 digest = set->hash_key[3];

	for (__u32 i = 0; i < CHAIN_MAX; i++) {
		if (i >= s->chain_names)
			break;
		digest = mix(set, digest, s->chain[i].hash);
	}
	return mix(set, digest, s->addresses_digest);
}

/*
 * Appends the canonical form of a chain name to the event, by words; more than its bytes is
 * overwritten.
 */
__attribute__((noinline)) int append_name(struct scratch *s, __u32 place, __u32 at)
{
	__u32 from = (place & (TEXT_NAMES - 1)) * TEXT_STRIDE;

	if (!s)
		return 0;
	at &= EVENT_TAIL_MAX - 1;
	for (__u32 i = 0; i <= NAME_MAX_BYTES / 8; i++)
		*(__u64 *)(s->event_tail + at + i * 8) = *(__u64 *)(s->text + from + i * 8);
	return 0;
}

static __always_inline bool send_event(struct scratch *s)
{
	__u32 tail = s->addresses * sizeof(struct answer_address), names = tail, bytes;

	for (__u32 i = 0; i < CHAIN_MAX; i++) {
		if (i >= s->chain_names)
			break;
		append_name(s, i, tail);
		tail += s->chain[i].bytes;
	}
	*(__u64 *)(s->event_tail + (tail & (EVENT_TAIL_MAX - 1))) = 0;
	s->event.type = EVENT_ANSWER;
	s->event.learning = s->generations;
	s->event.learned_at_ns = s->now_ns;
	s->event.expires_at = s->response.expires_at;
	s->event.client = s->asker.client;
	s->event.addresses = s->addresses;
	s->event.names = s->chain_names;
	s->event.names_bytes = tail - names;
	s->event.question_type = s->response.question.type;
	bytes = (sizeof(s->event) + tail + 7) & ~7U;
	if (bytes > sizeof(s->event) + EVENT_TAIL_MAX)
		return false;
	return bpf_ringbuf_output(&events, &s->event, bytes, 0) == 0;
}

/*
 * How much later an expiry may be than the agent was told: half of the lifetime. The agent knows to
 * look for questions for addresses alone; of others it is told each time.
 */
static __always_inline __u64 leeway(const struct response *response)
{
	__u16 type = response->question.type;

	if (type != TYPE_A && type != TYPE_AAAA)
		return 1;
	return response->lifetime / 2 < TIMES_UNTOLD ? response->lifetime / 2 : TIMES_UNTOLD;
}

/* The bucket of a question, or NULL. */
static __always_inline struct answer_bucket *answers_of(const struct settings *set, __u64 question)
{
	enum answer_limit which = (question >> 32) * set->answer_buckets >> 32;

	return bpf_map_lookup_elem(&answers, &which);
}

/* A slot of answers, and its content when it was found. */
struct told {
	struct answer *slot;
	__u64 content;
};

static __always_inline __u64 content_of(__u64 question, __u64 digest)
{
	__u64 content = (digest & ~CONTENT_QUESTION) | (question & CONTENT_QUESTION);

	return content > CONTENT_WRITING ? content : ~CONTENT_QUESTION;
}

/*
 * Finds the slot that has the content, or the one to take for it: of the same question, or that
 * which expires first.
 */
static __always_inline struct told find_told(struct answer_bucket *bucket, __u64 content)
{
	struct told told = {};
	__u64 least = ~0ULL;

#pragma unroll
	for (int i = 0; i < ANSWER_SLOTS; i++) {
		struct answer *slot = &bucket->slots[i];
		__u64 has = load_word(&slot->content);
		__u64 times = 0;

		if (has == content)
			return (struct told){slot, has};
		if ((has ^ content) & CONTENT_QUESTION)
			times = load_word(&slot->times) + 1; /* also of a free one */
		if (has != CONTENT_WRITING && times < least) {
			least = times;
			told = (struct told){slot, has};
		}
	}
	return told;
}

/* Notes what was told. Whoever else is at it keeps the slot: then this is told once more. */
static __always_inline void note_told(const struct told *told, __u64 content, __u64 was,
				      __u64 times)
{
	if (told->content == content) {
		if (was != times)
			__sync_bool_compare_and_swap(&told->slot->times, was, times);
		return;
	}
	if (!__sync_bool_compare_and_swap(&told->slot->content, told->content, CONTENT_WRITING))
		return;
	__sync_lock_test_and_set(&told->slot->times, times);
	__sync_lock_test_and_set(&told->slot->content, content);
}

/*
 * Tells the agent what is new: other names or addresses than before, or an expiry that is later by
 * more than the leeway. A loss is told again with the next response.
 */
static __always_inline void tell(struct scratch *s, const struct settings *set)
{
	__u64 content = content_of(s->response.told_by, digest_answer(s, set));
	__u64 times = 0, expires = s->response.expires_at, known = expires, reported;
	struct answer_bucket *bucket = answers_of(set, s->response.told_by);
	struct told told;

	if (!bucket) { /* the agent sizes the table so that there is one */
		if (!send_event(s))
			count(COUNTER_EVENT_LOST);
		return;
	}
	told = find_told(bucket, content);
	if (!told.slot) /* others are writing to all of them */
		told.slot = &bucket->slots[0];
	if (told.content == content) {
		times = load_word(&told.slot->times);
		if (load_word(&told.slot->content) != content)
			return; /* it gives way at this moment: told with the next response */
		known = times >> ANSWER_UNTOLD_BITS;
		reported = known - (times & TIMES_UNTOLD);
		if (known < expires)
			known = expires;
		if (expires < reported + leeway(&s->response)) {
			note_told(&told, content, times,
				  known << ANSWER_UNTOLD_BITS | (known - reported));
			return;
		}
	}
	if (send_event(s))
		note_told(&told, content, times, known << ANSWER_UNTOLD_BITS | (known - expires));
	else
		count(COUNTER_EVENT_LOST);
}
