/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What is known of an address: slots of a match set and its expiry, changed by compare-and-swap. */
#pragma once

#include "count.h"
#include "word.h"
#include <stdbool.h>

#define SLOT_MATCH_SET ((1ULL << MAPPING_MATCH_SET_BITS) - 1)
#define TICK_NS (1ULL << MAPPING_TICK_SHIFT)

/* A time in ticks, rounded up: nothing expires early. */
static __always_inline __u64 ticks(__u64 ns)
{
	return (ns + TICK_NS - 1) >> MAPPING_TICK_SHIFT;
}

/* A slot is live until its tick begins. A free slot, 0, never is. */
static __always_inline bool slot_live(__u64 slot, __u64 now_ns)
{
	return (slot >> MAPPING_MATCH_SET_BITS) << MAPPING_TICK_SHIFT > now_ns;
}

enum insertion {
	INSERTION_DONE,
	INSERTION_FULL, /* try the next page */
	INSERTION_LOST	/* another CPU was faster: look again */
};

/* Sets the later of both expiries. */
static __always_inline enum insertion prolong(__u64 *slot, __u64 old, __u64 wanted)
{
	if (old >= wanted || __sync_bool_compare_and_swap(slot, old, wanted))
		return INSERTION_DONE;
	return INSERTION_LOST;
}

/*
 * Takes a slot that is free, expired or given up. The map may hand a page that we hold to another
 * address at any moment, when it is full; then the slot is given back, or a name would open a door
 * to an address that it never had.
 */
static __always_inline enum insertion take(struct mapping_key *key, struct mapping *page,
					   __u64 *slot, __u64 old, __u64 wanted)
{
	if (!__sync_bool_compare_and_swap(slot, old, wanted))
		return INSERTION_LOST;
	if (bpf_map_lookup_elem(&mappings, key) == page)
		return INSERTION_DONE;
	__sync_bool_compare_and_swap(slot, wanted, old);
	return INSERTION_LOST;
}

/* Who adds a match set. */
enum adding {
	ADDING_ANSWER, /* somebody is about to connect to the address */
	ADDING_AGENT
};

/* Adds to one page, which exists, or is made. Gives an enum insertion; verified once, by itself. */
__attribute__((noinline)) int insert_in_page(struct mapping_key *of, __u64 wanted, __u64 now_ns,
					     enum adding who)
{
	__u64 *unused = NULL, was = 0;
	struct mapping_key key;
	struct mapping *page;

	if (!of)
		return INSERTION_LOST;
	key = *of; /* Linux 6.1 takes a key from the function's own stack only */
	page = bpf_map_lookup_elem(&mappings, &key);
	if (!page) {
		struct mapping made = {.slots = {wanted}};

		if (bpf_map_update_elem(&mappings, &key, &made, BPF_NOEXIST))
			return INSERTION_LOST;
		count(COUNTER_MAPPING_CREATED);
		/* A look marks it as used: else a full map gives it up before all that was used
		   at some time, and the application has not even connected. What the agent adds,
		   thousands at a time, is not to push that out. */
		if (who == ADDING_ANSWER)
			bpf_map_lookup_elem(&mappings, &key);
		return INSERTION_DONE;
	}
	for (int i = 0; i < MAPPING_SLOTS; i++) {
		__u64 slot = load_word(&page->slots[i]);

		if (slot_live(slot, now_ns)) {
			if (((slot ^ wanted) & SLOT_MATCH_SET) == 0)
				return prolong(&page->slots[i], slot, wanted);
		} else if (!unused) {
			unused = &page->slots[i];
			was = slot;
		}
	}
	if (!unused)
		return INSERTION_FULL;
	return take(&key, page, unused, was, wanted);
}

/*
 * Prolongs a match set that is live in the first page of an address, as most are when a name is
 * asked for again. False: it is for add_match_set.
 */
static __always_inline bool prolong_known(const struct address *address, __u32 match_set,
					  __u64 expires_at, __u64 now_ns)
{
	__u64 wanted = expires_at << MAPPING_MATCH_SET_BITS | (match_set & SLOT_MATCH_SET);
	struct mapping_key key = {.address = *address};
	struct mapping *page = bpf_map_lookup_elem(&mappings, &key);

	if (!page)
		return false;
	for (int i = 0; i < MAPPING_SLOTS; i++) {
		__u64 slot = load_word(&page->slots[i]);

		if (((slot ^ wanted) & SLOT_MATCH_SET) == 0 && slot_live(slot, now_ns))
			return prolong(&page->slots[i], slot, wanted) == INSERTION_DONE;
	}
	return false;
}

struct oldest {
	__u64 slot; /* expiry, and page and slot in place of the match set */
};

/* Finds the slot of a page that expires before the oldest so far. Verified once, by itself. */
__attribute__((noinline)) int find_oldest(struct mapping_key *of, struct oldest *oldest)
{
	struct mapping_key key;
	struct mapping *page;

	if (!of || !oldest)
		return 0;
	key = *of; /* as in insert_in_page */
	page = bpf_map_lookup_elem(&mappings, &key);
	if (!page)
		return 0;
	for (__u32 i = 0; i < MAPPING_SLOTS; i++) {
		__u64 slot = load_word(&page->slots[i]) & ~SLOT_MATCH_SET;

		slot |= key.page * MAPPING_SLOTS + i;
		if (slot < oldest->slot)
			oldest->slot = slot;
	}
	return 0;
}

/*
 * All pages are full of live match sets: the one that expires first gives way. Gives an enum
 * insertion; verified once, by itself.
 */
__attribute__((noinline)) int evict(struct mapping_key *of, __u64 wanted)
{
	struct oldest oldest = {.slot = ~0ULL};
	struct mapping_key key;
	struct mapping *page;
	__u64 *slot;

	if (!of)
		return INSERTION_LOST;
	key = *of; /* as in insert_in_page */
	for (__u32 i = 0; i < MAPPING_PAGES; i++) {
		key.page = i;
		find_oldest(&key, &oldest);
	}
	key.page = oldest.slot / MAPPING_SLOTS & (MAPPING_PAGES - 1);
	page = bpf_map_lookup_elem(&mappings, &key);
	if (!page)
		return INSERTION_LOST;
	slot = &page->slots[oldest.slot & (MAPPING_SLOTS - 1)];
	if (take(&key, page, slot, load_word(slot), wanted) != INSERTION_DONE)
		return INSERTION_LOST;
	count(COUNTER_MAPPING_EVICTED);
	return INSERTION_DONE;
}

/*
 * Adds a match set to an address, or prolongs it; never shortens. Gives 1 if it found no place,
 * else 0. A match set that slots of two pages hold, since an earlier page had room again, does no
 * harm.
 */
__attribute__((noinline)) int add_match_set(struct address *address, __u32 match_set,
					    __u64 expires_at, __u64 now_ns, enum adding who)
{
	__u64 wanted = expires_at << MAPPING_MATCH_SET_BITS | (match_set & SLOT_MATCH_SET);
	struct mapping_key key = {};
	enum insertion result;

	if (!address)
		return 1;
	key.address = *address;
	/* Turns beyond the number of pages are for races that other CPUs won. */
	for (int i = 0; i < 2 * MAPPING_PAGES; i++) {
		result = insert_in_page(&key, wanted, now_ns, who);
		if (result == INSERTION_DONE)
			return 0;
		if (result == INSERTION_LOST)
			continue;
		if (key.page == MAPPING_PAGES - 1)
			result = evict(&key, wanted);
		else
			key.page++;
		if (result == INSERTION_DONE)
			return 0;
	}
	count(COUNTER_MAPPING_FULL);
	return 1;
}

/* Takes a match set from one page. Gives 1 if it is gone; verified once, by itself. */
__attribute__((noinline)) int forget_in_page(struct mapping_key *of, __u32 match_set,
					     __u64 expires_at)
{
	struct mapping_key key;
	struct mapping *page;

	if (!of)
		return 0;
	key = *of; /* as in insert_in_page */
	page = bpf_map_lookup_elem(&mappings, &key);
	if (!page)
		return 0;
	for (int i = 0; i < MAPPING_SLOTS; i++) {
		__u64 slot = load_word(&page->slots[i]);

		if ((slot & SLOT_MATCH_SET) != match_set ||
		    slot >> MAPPING_MATCH_SET_BITS > expires_at)
			continue;
		/* Without a life, but not 0: slots behind it are still to be found. */
		if (slot != match_set &&
		    take(&key, page, &page->slots[i], slot, match_set) == INSERTION_DONE)
			return 1;
	}
	return 0;
}

/*
 * Takes a match set from an address, unless it expires later: then a program prolonged it. Gives 1
 * if it is gone, else 0. A place remains that is as good as an expired one.
 */
static __always_inline int forget_match_set(struct address *address, __u32 match_set,
					    __u64 expires_at)
{
	struct mapping_key key = {.address = *address};
	int gone = 0;

	match_set &= SLOT_MATCH_SET;
	for (__u32 i = 0; i < MAPPING_PAGES; i++) {
		key.page = i;
		gone |= forget_in_page(&key, match_set, expires_at);
	}
	return gone;
}

/*
 * Deletes the last page of an address if all of its slots expired at a time or before. Gives 1 if
 * it is gone, else 0. A program may prolong one of them at this moment: the agent hears of it, and
 * adds it again.
 */
__attribute__((noinline)) int collect_page(struct mapping_key *of, __u64 expires_at)
{
	struct mapping_key key;
	struct mapping *page;

	if (!of)
		return 0;
	key = *of; /* as in insert_in_page */
	page = bpf_map_lookup_elem(&mappings, &key);
	if (!page)
		return 0;
	for (int i = 0; i < MAPPING_SLOTS; i++) {
		if (load_word(&page->slots[i]) >> MAPPING_MATCH_SET_BITS > expires_at)
			return 0;
	}
	key.page++;
	if (bpf_map_lookup_elem(&mappings, &key))
		return 0;
	key.page--;
	if (bpf_map_delete_elem(&mappings, &key))
		return 0;
	count(COUNTER_MAPPING_COLLECTED);
	return 1;
}
