/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What is known of an address: slots of a match set and its expiry, in cells that many CPUs read
 * and change at once, without a lock.
 *
 * A cell belongs to one address and page from when its owner says MAPPING_OWNED until it says
 * something else, which then has another number. Who reads it looks at the owner before and after:
 * what it read in between is of that owner if both are the same. Who changes a slot replaces the
 * value that it read; in a cell that went to another owner that value is nowhere, since every slot
 * begins as the new owner's number. Who takes a cell makes it MAPPING_CHANGING, so that nobody
 * reads it and nobody else takes it, and then looks whether anybody used it until that moment; who
 * adds to a slot looks at the owner afterwards: one of the two sees the other.
 *
 * An address may have two cells for the same page, where two CPUs were at it at the same moment.
 * Whoever reads looks at all; a home says how many others there are to look at.
 */
#pragma once

#include "count.h"
#include "name.h"
#include "word.h"
#include <stdbool.h>

#define SLOT_MATCH_SET ((1ULL << MAPPING_MATCH_SET_BITS) - 1)
#define TICK_NS (1ULL << MAPPING_TICK_SHIFT)
#define MAPPING_PLACES (2 * MAPPING_GROUP) /* cells that an address may be in */
#define OWNER_PAGE ((MAPPING_PAGES - 1U) << MAPPING_PAGE_SHIFT)
#define USED_MASK 0xffffffU
#define USED_STALE 16U	      /* units: a use is noted once in about a second */
#define USED_NEVER (1U << 23) /* so long ago: half of what can be told */
#define USED_TRIES 4

/* A time in ticks, rounded up: nothing expires early. */
static __always_inline __u64 ticks(__u64 ns)
{
	return (ns + TICK_NS - 1) >> MAPPING_TICK_SHIFT;
}

static __always_inline __u64 expiry_of(__u64 slot)
{
	return slot >> MAPPING_MATCH_SET_BITS;
}

/* A slot is live until its tick begins. One that was never used never is. */
static __always_inline bool slot_live(__u64 slot, __u64 now_ns)
{
	return expiry_of(slot) << MAPPING_TICK_SHIFT > now_ns;
}

static __always_inline void search_for(struct cell_search *m, const struct address *address)
{
	const __u32 *from = (const __u32 *)address->bytes;

	m->words[0] = from[0] | (__u64)from[1] << 32;
	m->words[1] = from[2] | (__u64)from[3] << 32;
}

/* Of an address and page: secret, as that of names. */
static __always_inline __u64 hash_mapping(const struct settings *set, __u64 first, __u64 second,
					  __u32 page)
{
	return mix(set, mix(set, set->hash_key[0] + page, first), second);
}

static __always_inline __u32 home_of_mapping(const struct settings *set, __u64 hash)
{
	return (hash >> 32) * set->mapping_cells >> 32;
}

/* Finds where an address and page may be. */
static __always_inline bool locate(struct cell_search *m)
{
	__u32 zero = 0;
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	__u64 hash;

	if (!set)
		return false;
	hash = hash_mapping(set, m->words[0], m->words[1], m->page);
	m->home = home_of_mapping(set, hash);
	m->other = (hash & ~0U) * set->mapping_cells >> 32;
	return true;
}

static __always_inline struct mapping *cell_at(__u32 at)
{
	enum mapping_limit key = at;

	return bpf_map_lookup_elem(&mappings, &key);
}

/* The home is place 0; then come those in its group, then those in the other. */
static __always_inline __u32 cell_of_place(const struct cell_search *m, __u32 place)
{
	return (place & MAPPING_GROUP ? m->other : m->home) ^ (place & (MAPPING_GROUP - 1));
}

/* Whether a home says that there is anybody to look for in a place. */
static __always_inline bool looks_at(__u32 away, __u32 place)
{
	return away & (place & MAPPING_GROUP ? MAPPING_AWAY & -MAPPING_FAR : MAPPING_FAR - 1);
}

/* Whether a cell has the owner still, now that what was loaded of it is there. */
static __always_inline bool still_owned(const struct mapping *cell, __u32 owner, __u64 loaded)
{
	return load_half((const __u32 *)((const char *)&cell->owner + behind(loaded))) == owner;
}

/* Whether a cell is of the address and page; then its owner is given. */
static __always_inline bool is_of(const struct mapping *cell, const __u64 *words, __u32 page,
				  __u32 *owner)
{
	__u32 is = load_half(&cell->owner);
	const __u64 *address;
	__u64 first, second;

	if ((is & (OWNER_PAGE | MAPPING_STATE)) != (page << MAPPING_PAGE_SHIFT | MAPPING_OWNED))
		return false;
	address = (const __u64 *)(cell->address.bytes + behind(is));
	first = load_word(address);
	second = load_word(address + 1);
	if ((first ^ words[0]) | (second ^ words[1]))
		return false;
	*owner = is;
	return still_owned(cell, is, first | second);
}

/* A cell whose owner was loaded: what is loaded of it from now on is loaded after that. */
static __always_inline struct mapping *behind_owner(struct mapping *cell, __u32 owner)
{
	return (struct mapping *)((char *)cell + behind(owner));
}

/* Finds a cell of the address and page, from a place on. */
static __always_inline bool look_from(struct cell_search *m, __u32 first)
{
	const struct mapping *cell = cell_at(m->home);
	__u32 away;

	if (!cell)
		return false;
	away = load_half(&cell->used);
	for (__u32 place = 0; place < MAPPING_PLACES; place++) {
		if (place < first || (place && !looks_at(away, place)))
			continue;
		m->at = cell_of_place(m, place);
		m->place = place;
		cell = cell_at(m->at);
		if (cell && is_of(cell, m->words, m->page, &m->owner))
			return true;
	}
	return false;
}

/* The same. Verified once, by itself. */
__attribute__((noinline)) int find_cell(struct cell_search *m, __u32 first)
{
	return m && look_from(m, first);
}

static __always_inline __u32 use_time(__u64 now_ns)
{
	return now_ns >> MAPPING_USED_UNIT & USED_MASK;
}

/* Notes that an address was asked for or connected to: not each time, which would be a write. */
static __always_inline void note_use(struct mapping *cell, __u64 now_ns)
{
	__u32 was = load_half(&cell->used), now = use_time(now_ns);

	if (((now - (was >> MAPPING_USED_SHIFT)) & USED_MASK) < USED_STALE)
		return;
	__sync_bool_compare_and_swap(&cell->used, was,
				     now << MAPPING_USED_SHIFT | (was & MAPPING_AWAY));
}

enum insertion {
	INSERTION_DONE,
	INSERTION_ABSENT, /* the address has no such page */
	INSERTION_FULL,	  /* try the next page */
	INSERTION_LOST	  /* another CPU was faster: look again */
};

/*
 * Replaces a slot. The cell may go to another address at any moment; then the slot is given back,
 * or a name would open a door to an address that it never had.
 */
static __always_inline enum insertion put(struct mapping *cell, __u64 *slot, __u64 old,
					  __u64 wanted, __u32 owner)
{
	if (!expiry_of(old) && old != owner >> MAPPING_VERSION_SHIFT)
		return INSERTION_LOST;
	if (old != wanted && !__sync_bool_compare_and_swap(slot, old, wanted))
		return INSERTION_LOST;
	if (still_owned(cell, owner, old))
		return INSERTION_DONE;
	if (expiry_of(old))
		__sync_bool_compare_and_swap(slot, wanted, old);
	return INSERTION_LOST;
}

/* Who adds a match set. */
enum adding {
	ADDING_ANSWER, /* somebody is about to connect to the address */
	ADDING_AGENT
};

/* Adds to one page. Gives an enum insertion; verified once, by itself. */
__attribute__((noinline)) int insert_in_page(struct cell_search *m, __u64 wanted, __u64 now_ns,
					     enum adding who)
{
	__u64 *place = NULL, was = 0;
	struct mapping *cell;

	if (!m || !locate(m))
		return INSERTION_LOST;
	if (!find_cell(m, 0))
		return INSERTION_ABSENT;
	cell = cell_at(m->at);
	if (!cell)
		return INSERTION_LOST;
	cell = behind_owner(cell, m->owner);
	/* Before: who is about to take the cell for want of use sees the one or the other. */
	if (who == ADDING_ANSWER)
		note_use(cell, now_ns);
	for (int i = 0; i < MAPPING_SLOTS; i++) {
		__u64 slot = load_word(&cell->slots[i]);

		if (slot_live(slot, now_ns)) {
			if (((slot ^ wanted) & SLOT_MATCH_SET) == 0) {
				place = &cell->slots[i];
				was = slot;
				break;
			}
		} else if (!place) {
			place = &cell->slots[i];
			was = slot;
		}
		if (!expiry_of(slot))
			break; /* none behind it was ever used */
	}
	if (!place)
		return still_owned(cell, m->owner, 0) ? INSERTION_FULL : INSERTION_LOST;
	return put(cell, place, was, was > wanted && slot_live(was, now_ns) ? was : wanted,
		   m->owner);
}

/*
 * Prolongs a match set that is live in the first page of an address, as most are when a name is
 * asked for again, if that is at home. False: it is for add_match_set.
 */
static __always_inline bool prolong_known(struct cell_search *m, __u32 match_set, __u64 expires_at,
					  __u64 now_ns)
{
	__u64 wanted = expires_at << MAPPING_MATCH_SET_BITS | (match_set & SLOT_MATCH_SET);
	struct mapping *cell;
	__u32 owner;

	m->page = 0;
	if (!locate(m))
		return false;
	cell = cell_at(m->home);
	if (!cell || !is_of(cell, m->words, 0, &owner))
		return false;
	cell = behind_owner(cell, owner);
	for (int i = 0; i < MAPPING_SLOTS; i++) {
		__u64 slot = load_word(&cell->slots[i]);

		if (((slot ^ wanted) & SLOT_MATCH_SET) || !slot_live(slot, now_ns))
			continue;
		note_use(cell, now_ns); /* as in insert_in_page */
		return put(cell, &cell->slots[i], slot, slot > wanted ? slot : wanted, owner) ==
		       INSERTION_DONE;
	}
	return false;
}

/* What gives way first, from the least. */
#define WEIGHT_FREE 0ULL
#define WEIGHT_EXPIRED 1ULL
#define WEIGHT_LEADING 2ULL /* expired, and full: a page that lives may be behind it */
#define WEIGHT_LIVE (1ULL << 61)
#define WEIGHT_CHANGING (1ULL << 62)
#define WEIGHT_USED_SHIFT 36

/*
 * What a cell weighs, of an owner; 0: that which it has. Of those that live, what was used less
 * lately is less, and then what expires first. Verified once, by itself.
 */
__attribute__((noinline)) __u64 weigh_cell(__u32 at, __u32 owner, __u64 now_ns)
{
	struct mapping *cell = cell_at(at);
	__u64 latest = 0, last = 0, age;

	if (!cell)
		return WEIGHT_CHANGING;
	if (!owner)
		owner = load_half(&cell->owner);
	if ((owner & MAPPING_STATE) == MAPPING_CHANGING)
		return WEIGHT_CHANGING;
	if ((owner & MAPPING_STATE) == MAPPING_FREE)
		return WEIGHT_FREE;
	for (int i = 0; i < MAPPING_SLOTS; i++) {
		last = expiry_of(load_word(&cell->slots[i]));
		if (last > latest)
			latest = last;
	}
	if (latest << MAPPING_TICK_SHIFT > now_ns) {
		age = (use_time(now_ns) - (load_half(&cell->used) >> MAPPING_USED_SHIFT)) &
		      USED_MASK;
		return WEIGHT_LIVE | (USED_MASK - age) << WEIGHT_USED_SHIFT | latest;
	}
	return last && (owner & OWNER_PAGE) != OWNER_PAGE ? WEIGHT_LEADING : WEIGHT_EXPIRED;
}

/* The least of a group of places, and how many of them are for the taking. */
struct choice {
	__u64 weight;
	__u64 room;
	__u32 place;
};

/* Without a branch, which the verifier would follow. */
static __always_inline void consider_place(struct choice *best, __u64 weight, __u32 place)
{
	__u64 less = (__s64)(weight - best->weight) >> 63;

	best->weight += (weight - best->weight) & less;
	best->place += (place - best->place) & less;
	best->room += (weight - WEIGHT_LEADING) >> 63;
}

/*
 * Chooses the place that an address is to have: its home if nobody lives there, else in the group
 * that has more room, so that there is some where all of the table is in use. Verified once, by
 * itself.
 */
__attribute__((noinline)) int choose_place(struct cell_search *m, __u64 now_ns)
{
	struct choice near = {.weight = WEIGHT_CHANGING}, far = near;

	if (!m)
		return 0;
	for (__u32 place = 0; place < MAPPING_PLACES; place++) {
		__u64 weight = weigh_cell(cell_of_place(m, place), 0, now_ns);

		if (place == 0 && weight <= WEIGHT_EXPIRED) {
			near.weight = weight;
			break;
		}
		if (place < MAPPING_GROUP)
			consider_place(&near, weight, place);
		else
			consider_place(&far, weight, place);
	}
	if (far.room > near.room || (near.room == 0 && far.weight < near.weight))
		near = far;
	m->weight = near.weight;
	m->place = near.place;
	m->at = cell_of_place(m, near.place);
	return 0;
}

/* How many are away from a home: one more, or less. */
static __always_inline void count_away(__u32 home, __u32 at, __u32 by)
{
	struct mapping *cell = cell_at(home);

	if (cell && home != at)
		__sync_fetch_and_add(&cell->used,
				     (home ^ at) < MAPPING_GROUP ? by : by * MAPPING_FAR);
}

/* Makes a cell MAPPING_CHANGING, and ours. Gives its owner then; 0: another CPU was faster. */
static __always_inline __u32 seize_cell(struct mapping *cell, __u32 owner, __u32 page)
{
	__u32 taken = (owner | OWNER_PAGE | MAPPING_STATE) + 1;

	taken |= page << MAPPING_PAGE_SHIFT | MAPPING_CHANGING;
	if ((owner & MAPPING_STATE) == MAPPING_CHANGING ||
	    !__sync_bool_compare_and_swap(&cell->owner, owner, taken))
		return 0;
	return taken;
}

/* Lets go of a cell, for others to read: all that was written before is there. */
static __always_inline void leave_cell(struct mapping *cell, __u32 owner)
{
	__sync_lock_test_and_set(&cell->owner, owner);
}

/*
 * Takes the address out of a cell that was made MAPPING_CHANGING, by the number of its next owner.
 * Verified once, by itself.
 */
__attribute__((noinline)) int clear_cell(__u32 at, __u32 was, __u32 next)
{
	__u32 zero = 0, page = was >> MAPPING_PAGE_SHIFT & (MAPPING_PAGES - 1);
	const struct settings *set = bpf_map_lookup_elem(&settings, &zero);
	struct mapping *cell = cell_at(at);
	const __u64 *words;
	__u64 hash;

	if (!cell || !set)
		return 0;
	if ((was & MAPPING_STATE) == MAPPING_OWNED) {
		words = (const __u64 *)cell->address.bytes;
		hash = hash_mapping(set, words[0], words[1], page);
		count_away(home_of_mapping(set, hash), at, -1);
	}
	for (int i = 0; i < MAPPING_SLOTS; i++)
		*(volatile __u64 *)&cell->slots[i] = next >> MAPPING_VERSION_SHIFT;
	return 0;
}

static __always_inline void set_use(struct mapping *cell, __u64 now_ns, enum adding who)
{
	__u32 time = use_time(now_ns);

	/* What the agent adds, thousands at a time, is not to push out what an application is about
	   to connect to. */
	if (who == ADDING_AGENT)
		time = (time - USED_NEVER) & USED_MASK;
	for (int i = 0; i < USED_TRIES; i++) {
		__u32 was = load_half(&cell->used);

		if (__sync_bool_compare_and_swap(&cell->used, was,
						 time << MAPPING_USED_SHIFT | (was & MAPPING_AWAY)))
			break;
	}
}

/*
 * Makes the page of an address that has none, with one match set, in the place that was chosen.
 * Gives an enum insertion; verified once, by itself.
 */
__attribute__((noinline)) int claim_cell(struct cell_search *m, __u64 wanted, __u64 now_ns,
					 enum adding who)
{
	struct mapping *cell;
	__u32 owner, taken;

	if (!m || m->weight >= WEIGHT_CHANGING)
		return INSERTION_LOST;
	cell = cell_at(m->at);
	if (!cell)
		return INSERTION_LOST;
	owner = load_half(&cell->owner);
	if ((m->weight == WEIGHT_FREE) != ((owner & MAPPING_STATE) == MAPPING_FREE))
		return INSERTION_LOST;
	taken = seize_cell(cell, owner, m->page);
	if (!taken)
		return INSERTION_LOST;
	if (m->weight != WEIGHT_FREE && weigh_cell(m->at, owner, now_ns) != m->weight) {
		leave_cell(cell, owner); /* it was used until now */
		return INSERTION_LOST;
	}
	clear_cell(m->at, owner, taken);
	count_away(m->home, m->at, 1);
	*(volatile __u64 *)&cell->address.bytes[0] = m->words[0];
	*(volatile __u64 *)&cell->address.bytes[8] = m->words[1];
	*(volatile __u64 *)&cell->slots[0] = wanted;
	set_use(cell, now_ns, who);
	leave_cell(cell, (taken & ~MAPPING_STATE) | MAPPING_OWNED);
	count(COUNTER_MAPPING_CREATED);
	if (m->weight == WEIGHT_EXPIRED)
		count(COUNTER_MAPPING_COLLECTED);
	else if (m->weight != WEIGHT_FREE)
		count(COUNTER_MAPPING_DROPPED);
	return INSERTION_DONE;
}

struct oldest {
	__u64 slot; /* expiry, and page and slot in place of the match set */
};

#define OLDEST_PAGE_SHIFT 3 /* above the slot */

/* Finds the slot of a page that expires before the oldest so far. Verified once, by itself. */
__attribute__((noinline)) int find_oldest(struct cell_search *m, struct oldest *oldest)
{
	struct mapping *cell;

	if (!m || !oldest || !locate(m) || !look_from(m, 0))
		return 0;
	cell = cell_at(m->at);
	if (!cell)
		return 0;
	for (__u32 i = 0; i < MAPPING_SLOTS; i++) {
		__u64 slot = load_word(&cell->slots[i]) & ~SLOT_MATCH_SET;

		slot |= m->page << OLDEST_PAGE_SHIFT | i;
		if (slot < oldest->slot)
			oldest->slot = slot;
	}
	return 0;
}

/*
 * All pages are full of live match sets: the one that expires first gives way. Gives an enum
 * insertion; verified once, by itself.
 */
__attribute__((noinline)) int evict(struct cell_search *m, __u64 wanted)
{
	struct oldest oldest = {.slot = ~0ULL};
	struct mapping *cell;
	__u32 i;

	if (!m)
		return INSERTION_LOST;
	for (__u32 page = 0; page < MAPPING_PAGES; page++) {
		m->page = page;
		find_oldest(m, &oldest);
	}
	m->page = oldest.slot >> OLDEST_PAGE_SHIFT & (MAPPING_PAGES - 1);
	i = oldest.slot & ((1 << OLDEST_PAGE_SHIFT) - 1);
	if (i >= MAPPING_SLOTS || !locate(m) || !find_cell(m, 0))
		return INSERTION_LOST;
	cell = cell_at(m->at);
	if (!cell || put(cell, &cell->slots[i], load_word(&cell->slots[i]), wanted, m->owner) !=
			     INSERTION_DONE)
		return INSERTION_LOST;
	count(COUNTER_MAPPING_EVICTED);
	return INSERTION_DONE;
}

/*
 * Adds a match set to the address that is searched for, or prolongs it; never shortens. Gives 1 if
 * it found no place, else 0. A match set that slots of two pages hold, since an earlier page had
 * room again, does no harm.
 */
__attribute__((noinline)) int add_match_set(struct cell_search *m, __u32 match_set,
					    __u64 expires_at, __u64 now_ns, enum adding who)
{
	__u64 wanted = expires_at << MAPPING_MATCH_SET_BITS | (match_set & SLOT_MATCH_SET);
	enum insertion result;

	if (!m)
		return 1;
	m->page = 0;
	/* Turns beyond the number of pages are for races that other CPUs won. */
	for (int i = 0; i < 2 * MAPPING_PAGES; i++) {
		result = insert_in_page(m, wanted, now_ns, who);
		if (result == INSERTION_ABSENT) {
			choose_place(m, now_ns);
			result = claim_cell(m, wanted, now_ns, who);
		}
		if (result == INSERTION_DONE)
			return 0;
		if (result == INSERTION_LOST)
			continue;
		if (m->page < MAPPING_PAGES - 1)
			m->page++;
		else if (evict(m, wanted) == INSERTION_DONE)
			return 0;
		else
			m->page = MAPPING_PAGES - 1;
	}
	count(COUNTER_MAPPING_FULL);
	return 1;
}

/* Takes a match set from one page. Gives 1 if it is gone; verified once, by itself. */
__attribute__((noinline)) int forget_in_page(struct cell_search *m, __u32 match_set,
					     __u64 expires_at)
{
	__u64 forgotten = (__u64)MAPPING_FORGOTTEN << MAPPING_MATCH_SET_BITS | match_set;
	struct mapping *cell;
	__u32 first = 0;
	int gone = 0;

	if (!m || !locate(m))
		return 0;
	for (int n = 0; n < MAPPING_PLACES; n++) {
		if (!find_cell(m, first))
			break;
		first = m->place + 1;
		cell = cell_at(m->at);
		if (!cell)
			break;
		for (int i = 0; i < MAPPING_SLOTS; i++) {
			__u64 slot = load_word(&cell->slots[i]);
			__u64 expiry = expiry_of(slot);

			if ((slot & SLOT_MATCH_SET) != match_set || expiry > expires_at ||
			    expiry <= MAPPING_FORGOTTEN)
				continue;
			if (put(cell, &cell->slots[i], slot, forgotten, m->owner) == INSERTION_DONE)
				gone = 1;
		}
	}
	return gone;
}

/*
 * Takes a match set from the address that is searched for, unless it expires later: then a program
 * prolonged it. Gives 1 if it is gone, else 0. A place remains that is as good as an expired one.
 */
static __always_inline int forget_match_set(struct cell_search *m, __u32 match_set,
					    __u64 expires_at)
{
	int gone = 0;

	match_set &= SLOT_MATCH_SET;
	for (__u32 page = 0; page < MAPPING_PAGES; page++) {
		m->page = page;
		gone |= forget_in_page(m, match_set, expires_at);
	}
	return gone;
}

/* Whether all slots of a cell expired at a time or before. */
static __always_inline bool expired_by(const struct mapping *cell, __u64 expires_at)
{
	for (int i = 0; i < MAPPING_SLOTS; i++) {
		if (expiry_of(load_word(&cell->slots[i])) > expires_at)
			return false;
	}
	return true;
}

/*
 * Frees the cell of the last page of an address if all of its slots expired at a time or before.
 * Gives 1 if it is free, else 0. Verified once, by itself.
 */
__attribute__((noinline)) int collect_page(struct cell_search *m, __u64 expires_at)
{
	struct cell_search found;
	struct mapping *cell;
	__u32 taken;

	if (!m || !locate(m) || !find_cell(m, 0))
		return 0;
	found = *m;
	cell = cell_at(found.at);
	if (!cell || !expired_by(cell, expires_at))
		return 0;
	m->page++;
	if (m->page < MAPPING_PAGES && (!locate(m) || find_cell(m, 0)))
		return 0;
	taken = seize_cell(cell, found.owner, found.page);
	if (!taken)
		return 0;
	if (!expired_by(cell, expires_at)) {
		leave_cell(cell, found.owner);
		return 0;
	}
	clear_cell(found.at, found.owner, taken);
	leave_cell(cell, taken & ~(MAPPING_STATE | OWNER_PAGE));
	count(COUNTER_MAPPING_COLLECTED);
	return 1;
}
