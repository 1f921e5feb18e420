/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Questions that wait for an answer. Each has 7 places in the near bucket that its asker's hash
 * chooses: near buckets are few, so that they stay in the caches. A new one takes the place there
 * that is free, was answered or has expired, the oldest of these first. Only if all 7 wait it
 * spills, which the near bucket notes: then it has 16 places, the slots of two far buckets, by the
 * same rule; if there is none, the client that has most of the 16 gives up its oldest question
 * there. So nobody's flood pushes out what others asked, as long as it comes from fewer addresses
 * than there are places, and the order is that of age where every client has as many.
 *
 * Far buckets are looked at only where something spilled, by who asks: within the time that a
 * question waits. What waits in a far bucket was last asked no later than its near bucket notes.
 */
#pragma once

#include "count.h"
#include "name.h"
#include "stage.h"
#include "word.h"

#define NEAR_SLOTS (QUESTION_SLOTS - 1)
#define SPILLED NEAR_SLOTS /* the state of a near bucket that is its note */
#define QUESTION_PLACES (2 * QUESTION_SLOTS)
#define QUESTION_TRIES 3    /* so often may another CPU be faster */
#define STATE_TIME_SHIFT 20 /* above: 2^14 ns of the boot clock, when it was asked */
#define STATE_TIME_UNIT 14
#define STATE_CLIENT 0xffc00ULL /* part of a hash of the client's address */
#define STATE_ASKER 0x3feULL	/* part of the asker's hash: of others only the state is read */
#define STATE_ANSWERED 1ULL
#define STATE_TAKEN (~STATE_ANSWERED) /* being written: for who looks for room, it waits */
#define SPILL_AHEAD (1ULL << 33)      /* by so much later, 0.1 s, is a spill noted: seldom anew */

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
	asker->buckets[0] = (asker->hash >> 16 & ~0U) * set->near_buckets >> 32;
	asker->buckets[1] = set->near_buckets + ((asker->hash >> 32) * set->far_buckets >> 32);
	asker->buckets[2] = set->near_buckets + ((asker->hash & ~0U) * set->far_buckets >> 32);
	return true;
}

/* Finds where questions of s->asker are, and since when those that wait were asked. */
static __always_inline void expect_asker(struct scratch *s)
{
	__u32 zero = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 now_ns = s->now_ns, oldest_ns;

	if (!set || !find_asker(&s->asker, &s->search.asker))
		return;
	/* Later than 0, when none was asked; rounded up, as times of questions are down. */
	oldest_ns = now_ns > set->query_timeout_ns ? now_ns - set->query_timeout_ns : 1;
	s->search.oldest_waits = (oldest_ns + (1 << STATE_TIME_UNIT) - 1) >>
				 STATE_TIME_UNIT << (STATE_TIME_SHIFT - 1);
}

/* Whether a question of this near bucket may wait in a far one. */
static __always_inline bool spilled_lately(const struct question_bucket *near,
					   const struct search *search)
{
	return load_word(&near->state[SPILLED]) >> 1 >= search->oldest_waits;
}

static __always_inline void prefetch_bucket(__u32 which)
{
	struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);

	if (bucket)
		prefetch(bucket->state);
}

/* Prefetches them. */
static __always_inline void prefetch_questions(struct scratch *s)
{
	__u32 which = s->search.asker.buckets[0];
	struct question_bucket *near = bpf_map_lookup_elem(&questions, &which);

	if (!near || !unlikely(spilled_lately(near, &s->search)))
		return;
	prefetch_bucket(s->search.asker.buckets[1]);
	prefetch_bucket(s->search.asker.buckets[2]);
}

/* A slot as the verifier of Linux 6.1 sees that it is one: of comparisons it forgets too much. */
static __always_inline __u64 within(__u64 slot)
{
	asm volatile("%0 &= %1" : "+r"(slot) : "i"(QUESTION_SLOTS - 1));
	return slot;
}

/* Whether the state is that of a question of the asker, as far as the state tells. */
static __always_inline bool may_be_of(const struct asker *asker, __u64 state)
{
	return !((state ^ asker->tag) & STATE_ASKER) && state != 0 && state != STATE_TAKEN;
}

/*
 * Finds a question of the asker that is expected in the first so many slots of a bucket, and notes
 * slot and state. Verified once, by itself.
 */
__attribute__((noinline)) int find_in(struct question_bucket *bucket, struct scratch *s,
				      __u64 question, __u32 slots)
{
	enum finding finding = NOTHING_ASKED;
	struct asker *asker;

	if (!bucket || !s)
		return NOTHING_ASKED;
	asker = &s->search.asker;
	for (__u32 slot = 0; slot < QUESTION_SLOTS; slot++) {
		__u64 state = load_word(&bucket->state[slot]);

		if (slot >= slots)
			break;
		if (!may_be_of(asker, state) || bucket->slots[slot].asker != asker->hash)
			continue;
		finding = OTHER_ASKED;
		if (bucket->slots[slot].question != question)
			continue;
		s->asked.slot = slot;
		s->asked.state = state;
		return QUESTION_FOUND;
	}
	return finding;
}

/*
 * Finds it in a near bucket, where `first` is the first that may be of the asker, or none. So it is
 * found without a branch that is guessed wrong, most often.
 */
static __always_inline enum finding find_near(struct question_bucket *bucket, struct scratch *s,
					      __u64 question, __u32 first)
{
	const struct asker *asker = &s->search.asker;
	__u64 slot = within(first), state;

	if (first >= NEAR_SLOTS)
		return NOTHING_ASKED;
	state = load_word(&bucket->state[slot]);
	if (unlikely(!may_be_of(asker, state) || bucket->slots[slot].asker != asker->hash ||
		     bucket->slots[slot].question != question))
		return find_in(bucket, s, question, NEAR_SLOTS);
	s->asked.slot = slot;
	s->asked.state = state;
	return QUESTION_FOUND;
}

/* All bits, if the highest one is set, and else none: what is chosen by it needs no branch. */
static __always_inline __u64 all_bits_if_high(__u64 value)
{
	__s64 bits = (__s64)value >> 63;

	asm volatile("" : "+r"(bits)); /* else the compiler makes it a branch */
	return bits;
}

/* All bits, if a state has a part that is that of the asker. */
static __always_inline __u64 is_like(__u64 state, __u64 tag)
{
	return all_bits_if_high(((state ^ tag) & STATE_ASKER) - 1);
}

/* The first slot of a near bucket that may be of the asker; NEAR_SLOTS: none. */
static __always_inline __u32 first_of_asker(const struct question_bucket *bucket, __u64 tag)
{
	__u32 first = NEAR_SLOTS;

#pragma clang loop unroll(disable)
	for (__u32 i = 1; i <= NEAR_SLOTS; i++) {
		__u32 slot = NEAR_SLOTS - i;

		first ^= (first ^ slot) & is_like(load_word(&bucket->state[slot]), tag);
	}
	return first;
}

/* Finds a question of the asker that is expected in far buckets. Verified once, by itself. */
__attribute__((noinline)) int find_far(struct scratch *s, __u64 question)
{
	enum finding finding = NOTHING_ASKED;

	if (!s)
		return NOTHING_ASKED;
	for (int i = 1; i < 3; i++) {
		__u32 which = s->search.asker.buckets[i];
		struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);
		enum finding here;

		if (!bucket)
			return NOTHING_ASKED;
		here = find_in(bucket, s, question, QUESTION_SLOTS);
		s->asked.bucket = which;
		if (here == QUESTION_FOUND)
			return here;
		if (here == OTHER_ASKED)
			finding = here;
	}
	return finding;
}

/* Finds a question of the asker that is expected among the outstanding and the answered ones.
 * Verified once, by itself. */
__attribute__((noinline)) int find_question(struct scratch *s, __u64 question)
{
	struct question_bucket *bucket;
	enum finding near, far;
	__u32 which;

	if (!s)
		return NOTHING_ASKED;
	which = s->search.asker.buckets[0];
	bucket = bpf_map_lookup_elem(&questions, &which);
	if (!bucket)
		return NOTHING_ASKED;
	near = find_near(bucket, s, question, first_of_asker(bucket, s->search.asker.tag));
	s->asked.bucket = which;
	if (near == QUESTION_FOUND || !load_word(&bucket->state[SPILLED]))
		return near;
	far = find_far(s, question);
	return far == NOTHING_ASKED ? near : far;
}

/*
 * Uses a question up: of two answers only one succeeds. One that was asked again meanwhile counts
 * as found.
 */
__attribute__((noinline)) int take_question(struct scratch *s, __u64 question)
{
	struct asked *asked;

	if (!s)
		return 0;
	asked = &s->asked;
	for (int i = 0; i < QUESTION_TRIES; i++) {
		__u32 which = asked->bucket;
		struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);
		__u64 state = asked->state;

		if (!bucket || state & STATE_ANSWERED)
			return 0;
		if (__sync_bool_compare_and_swap(&bucket->state[asked->slot & (QUESTION_SLOTS - 1)],
						 state, state | STATE_ANSWERED))
			return 1;
		if (find_question(s, question) != QUESTION_FOUND)
			return 0;
	}
	return 0;
}

static __always_inline bool is_question(const struct question_slot *slot,
					const struct search *search)
{
	return !((slot->asker ^ search->asker.hash) | (slot->question ^ search->question));
}

/*
 * The highest bit says whether a question waits for its answer: it was asked when, or after, what
 * waits for longest was, and not answered. Without a branch that the verifier would follow.
 */
static __always_inline __u64 waits(__u64 state, __u64 oldest)
{
	return ~((state >> 1) - oldest) & ~(state << 63);
}

/* Looks through one far bucket. Verified once, by itself. */
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

		if (state == STATE_TAKEN)
			continue;
		if (!((state ^ search->asker.tag) & STATE_ASKER) && state &&
		    is_question(&bucket->slots[slot], search)) {
			search->place = place;
			search->state = state;
			search->found = 1;
			return 0;
		}
		if (waits(state, search->oldest_waits) >> 63)
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
 * Considers the questions of one of two far buckets to be given up: that of the client which has
 * most in both, and of these the oldest. Verified once, by itself.
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

/* Finds the question in far buckets, or how much room they have. */
static __always_inline void look_far(struct scratch *s)
{
	struct search *search = &s->search;
	__u32 first = search->asker.buckets[1], second = search->asker.buckets[2];
	struct question_bucket *one = bpf_map_lookup_elem(&questions, &first);
	struct question_bucket *two = bpf_map_lookup_elem(&questions, &second);

	search->found = 0;
	search->state = STATE_TAKEN;
	if (!one || !two)
		return;
	look_through(one, s, 0);
	if (!search->found)
		look_through(two, s, 1);
}

/*
 * Finds the place for it there: in the bucket that has more room, or of a question that waits, if
 * none has any.
 */
static __always_inline void choose_far(struct scratch *s)
{
	struct search *search = &s->search;
	__u32 first = search->asker.buckets[1], second = search->asker.buckets[2], better;
	struct question_bucket *one = bpf_map_lookup_elem(&questions, &first);
	struct question_bucket *two = bpf_map_lookup_elem(&questions, &second);

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

/* Replaces the state of a place, and unless it is that of the question, what it holds. */
static __always_inline bool take_place(struct question_bucket *bucket, __u32 slot, __u64 old,
				       const struct search *search, __u64 state)
{
	if (old == STATE_TAKEN ||
	    !__sync_bool_compare_and_swap(&bucket->state[slot], old, STATE_TAKEN))
		return false;
	bucket->slots[slot].asker = search->asker.hash;
	bucket->slots[slot].question = search->question;
	__sync_lock_test_and_set(&bucket->state[slot], state);
	return true;
}

/* The same in a near bucket, if there still is room. */
static __always_inline int take_near(struct question_bucket *bucket, __u32 room, struct scratch *s,
				     __u64 state)
{
	__u64 slot = within(room), old = load_word(&bucket->state[slot]);

	if (ends_after(STAGE_QUESTION))
		return REMEMBERED;
	if (unlikely(waits(old, s->search.oldest_waits) >> 63))
		return NOT_REMEMBERED;
	return take_place(bucket, slot, old, &s->search, state) ? REMEMBERED : NOT_REMEMBERED;
}

static __always_inline int take_far(struct scratch *s, __u64 state)
{
	struct search *search = &s->search;
	__u32 place = search->place & (QUESTION_PLACES - 1);
	__u32 slot = place & (QUESTION_SLOTS - 1);
	__u32 which = search->asker.buckets[place < QUESTION_SLOTS ? 1 : 2];
	struct question_bucket *bucket = bpf_map_lookup_elem(&questions, &which);

	if (!bucket)
		return NOT_REMEMBERED;
	if (search->found)
		return __sync_bool_compare_and_swap(&bucket->state[slot], search->state, state)
			       ? REMEMBERED
			       : NOT_REMEMBERED;
	if (!take_place(bucket, slot, search->state, search, state))
		return NOT_REMEMBERED;
	return has_room(search) ? REMEMBERED : REMEMBERED_FOR_ANOTHER;
}

/* Notes that what has this state is, or will be, in a far bucket. The note never says earlier. */
static __always_inline bool note_spill(struct question_bucket *near, __u64 state)
{
	__u64 noted = load_word(&near->state[SPILLED]);
	__u64 note = (state >> STATE_TIME_SHIFT << STATE_TIME_SHIFT) + SPILL_AHEAD + STATE_ANSWERED;

	return noted >= state || __sync_bool_compare_and_swap(&near->state[SPILLED], noted, note);
}

/*
 * Remembers a question that may be in far buckets, or for which the near bucket has no room:
 * `room` is the slot that has. Verified once, by itself.
 */
__attribute__((noinline)) int remember_far(struct question_bucket *near, struct scratch *s,
					   __u64 state, __u32 room)
{
	if (!near || !s)
		return NOT_REMEMBERED;
	look_far(s);
	if (!s->search.found && room < NEAR_SLOTS)
		return take_near(near, room, s, state);
	choose_far(s);
	if (ends_after(STAGE_QUESTION))
		return REMEMBERED;
	return note_spill(near, state) ? take_far(s, state) : NOT_REMEMBERED;
}

/* What a near bucket has, by slot; NEAR_SLOTS: none. */
struct near_view {
	__u32 of_asker; /* the first that may be of the asker */
	__u32 room;	/* of what does not wait, the oldest */
};

/* Without a branch, which would be guessed wrong. */
static __always_inline struct near_view look_near(const struct question_bucket *bucket,
						  const struct search *search)
{
	const __u64 tag = search->asker.tag, oldest_waits = search->oldest_waits;
	struct near_view view = {.of_asker = NEAR_SLOTS};
	__u64 oldest = ~0ULL >> 1; /* when, and in the lowest bits where */

#pragma clang loop unroll(disable)
	for (__u32 i = 1; i <= NEAR_SLOTS; i++) {
		__u32 slot = NEAR_SLOTS - i;
		__u64 state = load_word(&bucket->state[slot]);
		__u64 when = ((state >> 1 & -(__u64)QUESTION_SLOTS) | slot) |
			     all_bits_if_high(waits(state, oldest_waits)) >> 1;

		view.of_asker ^= (view.of_asker ^ slot) & is_like(state, tag);
		oldest ^= (oldest ^ when) & all_bits_if_high(when - oldest);
	}
	view.room = oldest & (QUESTION_SLOTS - 1);
	return view;
}

static __always_inline int try_to_remember(struct scratch *s, __u64 state)
{
	struct search *search = &s->search;
	__u32 which = search->asker.buckets[0];
	struct question_bucket *near = bpf_map_lookup_elem(&questions, &which);
	struct near_view view;

	if (!near)
		return NOT_REMEMBERED;
	view = look_near(near, search);
	if (unlikely(view.of_asker < NEAR_SLOTS) &&
	    find_near(near, s, search->question, view.of_asker) == QUESTION_FOUND)
		return __sync_bool_compare_and_swap(
			       &near->state[s->asked.slot & (QUESTION_SLOTS - 1)], s->asked.state,
			       state)
			       ? REMEMBERED
			       : NOT_REMEMBERED;
	if (unlikely(view.room >= NEAR_SLOTS || spilled_lately(near, search)))
		return remember_far(near, s, state, view.room);
	return take_near(near, view.room, s, state);
}

/* Remembers a question of the asker that is expected, or that it was asked again. Verified once, by
 * itself. */
__attribute__((noinline)) int remember_question(struct scratch *s, __u64 question)
{
	__u64 state;
	int result;

	if (!s)
		return NOT_REMEMBERED;
	s->search.question = question;
	state = s->now_ns >> STATE_TIME_UNIT << STATE_TIME_SHIFT | s->search.asker.tag;
	/*
	 * Unrolled: "back-edge from insn", says Linux 6.1, where a loop goes on by falling through.
	 */
#pragma unroll
	for (int i = 0; i < QUESTION_TRIES; i++) {
		result = try_to_remember(s, state);
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
