/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Questions that wait for an answer. Each has 16 places, the slots of two buckets that its asker's
 * hash chooses. A new one takes a place that is free, answered or expired; if there is none, the
 * client that has most of the 16 gives up its oldest question there. So nobody's flood pushes out
 * what others asked, as long as it comes from fewer addresses than there are places, and the order
 * is that of age where every client has as many.
 */
#pragma once

#include "count.h"
#include "name.h"
#include "stage.h"
#include "word.h"

#define QUESTION_PLACES (2 * QUESTION_SLOTS)
#define QUESTION_TRIES 3    /* so often may another CPU be faster */
#define STATE_TIME_SHIFT 20 /* above: 2^14 ns of the boot clock, when it was asked */
#define STATE_TIME_UNIT 14
#define STATE_CLIENT 0xffc00ULL /* part of a hash of the client's address */
#define STATE_ASKER 0x3feULL	/* part of the asker's hash: of others only the state is read */
#define STATE_ANSWERED 1ULL
#define STATE_TAKEN (~0ULL) /* being written */

enum finding {
	NOTHING_ASKED, /* under this address, port and id */
	OTHER_ASKED,   /* but not this */
	QUESTION_FOUND
};

static __always_inline __u64 asked_at_ns(__u64 state)
{
	return state >> STATE_TIME_SHIFT << STATE_TIME_UNIT;
}

static __always_inline bool find_asker(const struct query_key *key, struct asker *asker)
{
	const __u64 *words = (const __u64 *)key;
	__u32 zero = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 client;

	if (!set)
		return false;
	client = mix(set, mix(set, set->hash_key[3], words[0]), words[1]);
	asker->hash = mix(set, client, words[2]);
	asker->tag = (client >> 32 & STATE_CLIENT) | (asker->hash & STATE_ASKER);
	asker->buckets[0] = (asker->hash >> 32) * set->question_buckets >> 32;
	asker->buckets[1] = (asker->hash & ~0U) * set->question_buckets >> 32;
	return true;
}

/* Finds where questions of s->asker are. */
static __always_inline void expect_asker(struct scratch *s)
{
	find_asker(&s->asker, &s->search.asker);
}

/* Prefetches them. */
static __always_inline void prefetch_questions(struct scratch *s)
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		__u32 which = s->search.asker.buckets[i];
		struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);

		if (bucket)
			prefetch(bucket->state);
	}
}

/* Finds a question of the asker that is expected among the outstanding and the answered ones.
 * Verified once, by itself. */
__attribute__((noinline)) int find_question(struct scratch *s, __u64 question, struct asked *asked)
{
	enum finding finding = NOTHING_ASKED;
	struct asker *asker;

	if (!s || !asked)
		return NOTHING_ASKED;
	asker = &s->search.asker;
	for (int i = 0; i < 2; i++) {
		__u32 which = asker->buckets[i];
		struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);

		if (!bucket)
			return NOTHING_ASKED;
		for (__u32 slot = 0; slot < QUESTION_SLOTS; slot++) {
			__u64 state = load_word(&bucket->state[slot]);

			if ((state ^ asker->tag) & STATE_ASKER || state == 0 ||
			    state == STATE_TAKEN || bucket->slots[slot].asker != asker->hash)
				continue;
			finding = OTHER_ASKED;
			if (bucket->slots[slot].question != question)
				continue;
			asked->bucket = which;
			asked->slot = slot;
			asked->state = state;
			return QUESTION_FOUND;
		}
	}
	return finding;
}

/*
 * Uses a question up: of two answers only one succeeds. One that was asked again meanwhile counts
 * as found.
 */
__attribute__((noinline)) int take_question(struct scratch *s, __u64 question, struct asked *asked)
{
	if (!s || !asked)
		return 0;
	for (int i = 0; i < QUESTION_TRIES; i++) {
		__u32 which = asked->bucket;
		struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);
		__u64 state = asked->state;

		if (!bucket || state & STATE_ANSWERED)
			return 0;
		if (__sync_bool_compare_and_swap(&bucket->state[asked->slot & (QUESTION_SLOTS - 1)],
						 state, state | STATE_ANSWERED))
			return 1;
		if (find_question(s, question, asked) != QUESTION_FOUND)
			return 0;
	}
	return 0;
}

static __always_inline bool is_question(const struct question_slot *slot,
					const struct search *search)
{
	return !((slot->asker ^ search->asker.hash) | (slot->question ^ search->question));
}

/* Looks through one bucket. Verified once, by itself. */
__attribute__((noinline)) int look_through(struct question_bucket *bucket, struct scratch *s,
					   __u32 which)
{
	struct search *search;

	if (!bucket || !s)
		return 0;
	search = &s->search;
	which &= 1;
	search->oldest[which] = ~0ULL;
	search->room[which] = 0;
	for (__u32 slot = 0; slot < QUESTION_SLOTS; slot++) {
		__u64 state = load_word(&bucket->state[slot]);
		__u32 place = which * QUESTION_SLOTS + slot;
		__u64 live;

		if (state == STATE_TAKEN)
			continue;
		if (!((state ^ search->asker.tag) & STATE_ASKER) && state &&
		    is_question(&bucket->slots[slot], search)) {
			search->place = place;
			search->state = state;
			search->found = 1;
			return 0;
		}
		/* The high bit, without a branch that the verifier would follow. */
		live = ~(asked_at_ns(state) - search->oldest_live_ns) & ~(state << 63);
		if (live >> 63)
			continue;
		search->room[which]++;
		if (state < search->oldest[which]) {
			search->oldest[which] = state;
			search->places[which] = place;
		}
	}
	return 0;
}

static __always_inline bool has_room(const struct search *search)
{
	return search->found || search->room[0] || search->room[1];
}

/* Whether a place is of a client, as 1 or 0: without a branch, which the verifier would follow. */
static __always_inline __u64 is_of_client(const struct question_bucket *bucket, __u32 slot,
					  __u64 state)
{
	return (((load_word(&bucket->state[slot]) ^ state) & STATE_CLIENT) - 1) >> 63;
}

/*
 * Considers the questions of one of two buckets to be given up: that of the client which has most
 * in both, and of these the oldest. Verified once, by itself.
 */
__attribute__((noinline)) int consider_victims(struct question_bucket *bucket,
					       struct question_bucket *other, struct scratch *s,
					       __u32 which)
{
	struct search *search;

	if (!bucket || !other || !s)
		return 0;
	search = &s->search;
	for (__u32 i = 0; i < QUESTION_SLOTS; i++) {
		__u64 state = load_word(&bucket->state[i]), score = 0;

		if (state == STATE_TAKEN)
			continue;
			/* Unrolled it would need more of the stack than there is. */
#pragma clang loop unroll(disable)
		for (__u32 j = 0; j < QUESTION_SLOTS; j++) {
			score += is_of_client(bucket, j, state);
			score += is_of_client(other, j, state);
		}
		score = score << 48 | (~state >> STATE_TIME_SHIFT);
		if (score > search->most) {
			search->most = score;
			search->place = which * QUESTION_SLOTS + i;
			search->state = state;
		}
	}
	return 0;
}

/*
 * Finds the question, or the place for it: in the bucket that has more room, or of a live question
 * if none has any.
 */
static __always_inline void look_for_place(struct scratch *s)
{
	struct search *search = &s->search;
	__u32 first = search->asker.buckets[0], second = search->asker.buckets[1], better;
	struct question_bucket *one = bpf_map_lookup_elem(&questions, &first);
	struct question_bucket *two = bpf_map_lookup_elem(&questions, &second);

	search->found = 0;
	search->state = STATE_TAKEN;
	if (!one || !two)
		return;
	look_through(one, s, 0);
	if (!search->found)
		look_through(two, s, 1);
	if (search->found)
		return;
	if (has_room(search)) {
		better = search->room[1] > search->room[0];
		search->place = better ? search->places[1] : search->places[0];
		search->state = better ? search->oldest[1] : search->oldest[0];
		return;
	}
	search->most = 0;
	consider_victims(one, two, s, 0);
	consider_victims(two, one, s, 1);
}

enum remembering { REMEMBERED, REMEMBERED_FOR_ANOTHER, NOT_REMEMBERED };

/* Writes the question into the place that was found. Verified once, by itself. */
__attribute__((noinline)) int take_place(struct scratch *s, __u64 state)
{
	struct question_bucket *bucket;
	struct search *search;
	__u32 place, slot, which;
	__u64 old;

	if (!s)
		return NOT_REMEMBERED;
	search = &s->search;
	if (search->state == STATE_TAKEN)
		return NOT_REMEMBERED;
	place = search->place & (QUESTION_PLACES - 1);
	slot = place & (QUESTION_SLOTS - 1);
	which = place < QUESTION_SLOTS ? search->asker.buckets[0] : search->asker.buckets[1];
	old = search->state;
	bucket = bpf_map_lookup_elem(&questions, &which);
	if (!bucket)
		return NOT_REMEMBERED;
	if (search->found)
		return __sync_bool_compare_and_swap(&bucket->state[slot], old, state)
			       ? REMEMBERED
			       : NOT_REMEMBERED;
	if (!__sync_bool_compare_and_swap(&bucket->state[slot], old, STATE_TAKEN))
		return NOT_REMEMBERED;
	bucket->slots[slot].asker = search->asker.hash;
	bucket->slots[slot].question = search->question;
	__sync_lock_test_and_set(&bucket->state[slot], state);
	return has_room(search) ? REMEMBERED : REMEMBERED_FOR_ANOTHER;
}

/* Remembers a question of the asker that is expected, or that it was asked again. Verified once, by
 * itself. */
__attribute__((noinline)) int remember_question(struct scratch *s, __u64 question)
{
	__u64 now_ns, state;
	__u32 zero = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	int result;

	if (!s || !set)
		return NOT_REMEMBERED;
	now_ns = s->now_ns;
	s->search.question = question;
	/* Later than 0, when none was asked. */
	s->search.oldest_live_ns =
		now_ns > set->query_timeout_ns ? now_ns - set->query_timeout_ns : 1;
	state = now_ns >> STATE_TIME_UNIT << STATE_TIME_SHIFT | s->search.asker.tag;
	/*
	 * Unrolled: "back-edge from insn", says Linux 6.1, where a loop goes on by falling through.
	 */
#pragma unroll
	for (int i = 0; i < QUESTION_TRIES; i++) {
		look_for_place(s);
		if (ends_after(STAGE_QUESTION))
			return REMEMBERED;
		result = take_place(s, state);
		if (result != NOT_REMEMBERED)
			return result;
	}
	return NOT_REMEMBERED;
}

static __always_inline void remember(struct scratch *s, __u64 question)
{
	/* One question is lost either way: an older one, or this. */
	if (remember_question(s, question) != REMEMBERED)
		count(COUNTER_QUERY_EVICTED);
	count(COUNTER_QUERY);
}
