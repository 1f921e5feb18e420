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

#define QUESTION_PLACES (2 * QUESTION_SLOTS)
#define QUESTION_TRIES 3    /* so often may another CPU be faster */
#define STATE_TIME_SHIFT 16 /* above: 2^10 ns of the boot clock, when it was asked */
#define STATE_TIME_UNIT 10
#define STATE_CLIENT 0xfffeULL /* part of a hash of the client's address */
#define STATE_ANSWERED 1ULL
#define STATE_TAKEN (~0ULL) /* being written */

/* Who asks, as the buckets hold it. */
struct asker {
	__u64 hash;
	__u64 client; /* as in the state */
	__u32 buckets[2];
};

/* A question that was found, and its state then. */
struct asked {
	__u32 bucket;
	__u32 slot;
	__u64 state;
};

enum finding {
	NOTHING_ASKED, /* under this address, port and id */
	OTHER_ASKED,   /* but not this */
	QUESTION_FOUND
};

static __always_inline __u64 load_word(const __u64 *word)
{
	return *(const volatile __u64 *)word;
}

static __always_inline __u64 asked_at_ns(__u64 state)
{
	return state >> STATE_TIME_SHIFT << STATE_TIME_UNIT;
}

static __always_inline bool find_asker(const struct query_key *key, struct asker *asker)
{
	const __u64 *words = (const __u64 *)key;
	__u32 zero = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	const struct table_limits *limit = bpf_map_lookup_elem(&limits, &zero);
	__u64 client;

	if (!set || !limit)
		return false;
	client = mix(set, mix(set, set->hash_key[3], words[0]), words[1]);
	asker->client = client >> 32 & STATE_CLIENT;
	asker->hash = mix(set, client, words[2]);
	asker->buckets[0] = (asker->hash >> 32) * limit->question_buckets >> 32;
	asker->buckets[1] = (asker->hash & ~0U) * limit->question_buckets >> 32;
	return true;
}

/* Finds a question among the outstanding and the answered ones. Verified once, by itself. */
__attribute__((noinline)) int find_question(struct query_key *key, __u64 question,
					    struct asked *asked)
{
	enum finding finding = NOTHING_ASKED;
	struct asker asker;

	if (!key || !asked || !find_asker(key, &asker))
		return NOTHING_ASKED;
	for (int i = 0; i < 2; i++) {
		__u32 which = asker.buckets[i];
		struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);

		if (!bucket)
			return NOTHING_ASKED;
		for (__u32 slot = 0; slot < QUESTION_SLOTS; slot++) {
			__u64 state = load_word(&bucket->state[slot]);

			if (state == 0 || state == STATE_TAKEN || bucket->asker[slot] != asker.hash)
				continue;
			finding = OTHER_ASKED;
			if (bucket->question[slot] != question)
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
__attribute__((noinline)) int take_question(struct query_key *key, __u64 question,
					    struct asked *asked)
{
	if (!key || !asked)
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
		if (find_question(key, question, asked) != QUESTION_FOUND)
			return 0;
	}
	return 0;
}

/* The search for a place. One that is being written is not looked at. */
struct search {
	struct asker asker;
	__u64 question;
	__u64 oldest_live_ns; /* what was asked before has expired */
	__u64 states[QUESTION_PLACES];
	__u64 oldest[2]; /* in each bucket, of what is free, answered or expired */
	__u32 places[2]; /* of the oldest */
	__u32 room[2];	 /* how many are */
	__u64 most;	 /* questions of one client, and of these the oldest */
	__u32 place;
	__u32 found; /* the question is there already */
};

/* Looks through one bucket. Verified once, by itself. */
__attribute__((noinline)) int look_through(struct question_bucket *bucket, struct search *search,
					   __u32 which)
{
	if (!bucket || !search)
		return 0;
	which &= 1;
	search->oldest[which] = ~0ULL;
	search->room[which] = 0;
	for (__u32 slot = 0; slot < QUESTION_SLOTS; slot++) {
		__u64 state = load_word(&bucket->state[slot]);
		__u32 place = which * QUESTION_SLOTS + slot;

		search->states[place] = state;
		if (state == STATE_TAKEN)
			continue;
		if (state && bucket->asker[slot] == search->asker.hash &&
		    bucket->question[slot] == search->question) {
			search->place = place;
			search->found = 1;
			return 0;
		}
		if (!(state & STATE_ANSWERED) && asked_at_ns(state) >= search->oldest_live_ns &&
		    state)
			continue;
		search->room[which]++;
		if (state < search->oldest[which]) {
			search->oldest[which] = state;
			search->places[which] = place;
		}
	}
	return 0;
}

/* Finds the question, or the place for it in the bucket that has more room. */
static __always_inline void look_for_place(struct search *search)
{
	search->found = 0;
	for (__u32 i = 0; i < 2; i++) {
		__u32 which = search->asker.buckets[i];
		struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);

		if (bucket && !search->found)
			look_through(bucket, search, i);
	}
	if (!search->found)
		search->place =
			search->room[1] > search->room[0] ? search->places[1] : search->places[0];
}

static __always_inline bool has_room(const struct search *search)
{
	return search->found || search->room[0] || search->room[1];
}

/*
 * All places are of live questions: finds the oldest of the client that has most of them. Verified
 * once, by itself.
 */
__attribute__((noinline)) int choose_victim(struct search *search)
{
	if (!search)
		return 0;
	search->most = 0;
	for (__u32 i = 0; i < QUESTION_PLACES; i++) {
		__u64 state = search->states[i], score = 0;

		if (state == STATE_TAKEN)
			continue;
			/* Without a branch, of which the verifier would follow both ways. */
#pragma unroll
		for (__u32 j = 0; j < QUESTION_PLACES; j++)
			score += (((search->states[j] ^ state) & STATE_CLIENT) - 1) >> 63;
		score = score << 48 | (~state >> STATE_TIME_SHIFT);
		if (score > search->most) {
			search->most = score;
			search->place = i;
		}
	}
	return 0;
}

enum remembering { REMEMBERED, REMEMBERED_FOR_ANOTHER, NOT_REMEMBERED };

/* Writes the question into the place that was found. Verified once, by itself. */
__attribute__((noinline)) int take_place(struct search *search, __u64 state)
{
	struct question_bucket *bucket;
	__u32 place, slot, which;
	__u64 old;

	if (!search)
		return NOT_REMEMBERED;
	place = search->place & (QUESTION_PLACES - 1);
	slot = place & (QUESTION_SLOTS - 1);
	which = place < QUESTION_SLOTS ? search->asker.buckets[0] : search->asker.buckets[1];
	old = search->states[place];
	bucket = bpf_map_lookup_elem(&questions, &which);
	if (!bucket || old == STATE_TAKEN)
		return NOT_REMEMBERED;
	if (search->found)
		return __sync_bool_compare_and_swap(&bucket->state[slot], old, state)
			       ? REMEMBERED
			       : NOT_REMEMBERED;
	if (!__sync_bool_compare_and_swap(&bucket->state[slot], old, STATE_TAKEN))
		return NOT_REMEMBERED;
	bucket->asker[slot] = search->asker.hash;
	bucket->question[slot] = search->question;
	__sync_lock_test_and_set(&bucket->state[slot], state);
	return has_room(search) ? REMEMBERED : REMEMBERED_FOR_ANOTHER;
}

/* Remembers a question, or that it was asked again. Verified once, by itself. */
__attribute__((noinline)) int remember_question(struct query_key *key, __u64 question)
{
	struct search search = {.question = question};
	__u64 now_ns = bpf_ktime_get_boot_ns(), state;
	__u32 zero = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	int result;

	if (!key || !set || !find_asker(key, &search.asker))
		return NOT_REMEMBERED;
	state = now_ns >> STATE_TIME_UNIT << STATE_TIME_SHIFT | search.asker.client;
	if (now_ns > set->query_timeout_ns)
		search.oldest_live_ns = now_ns - set->query_timeout_ns;
		/*
		 * Unrolled: "back-edge from insn", says Linux 6.1, where a loop goes on by falling
		 * through.
		 */
#pragma unroll
	for (int i = 0; i < QUESTION_TRIES; i++) {
		look_for_place(&search);
		if (!has_room(&search))
			choose_victim(&search);
		result = take_place(&search, state);
		if (result != NOT_REMEMBERED)
			return result;
	}
	return NOT_REMEMBERED;
}

static __always_inline void remember(struct query_key *key, __u64 question)
{
	/* One question is lost either way: an older one, or this. */
	if (remember_question(key, question) != REMEMBERED)
		count(COUNTER_QUERY_EVICTED);
	count(COUNTER_QUERY);
}
