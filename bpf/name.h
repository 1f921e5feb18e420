/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Domain names: read from a message, brought into canonical form, hashed, and looked up among those
 * that patterns name. hash.go has the same hash for the side that fills the tables.
 *
 * The functions that are not static are verified once by themselves, with any argument, instead of
 * at each place that calls them: that keeps their loops from multiplying.
 */
#pragma once

#include "maps.h"
#include "scratch.h"
#include "word.h"
#include <stdbool.h>

#define HEADER_BYTES 12	  /* of a message; no name begins before */
#define LABEL_MAX 63	  /* bytes */
#define POINTERS_MAX 126  /* in one name: no more than it can have labels */
#define POINTER_BITS 0xc0 /* in the first byte of a compression pointer */
#define EVERY_BYTE 0x0101010101010101ULL
#define HIGH_BITS (0x80 * EVERY_BYTE)

static __always_inline __u64 mix_by(__u64 first, __u64 second, __u64 hash, __u64 word)
{
	word *= first;
	word ^= word >> 32;
	hash = (hash ^ word) * second;
	return hash ^ hash >> 29;
}

/* Both multipliers are secret, so that no one can choose names that collide. */
static __always_inline __u64 mix(const struct settings *set, __u64 hash, __u64 word)
{
	return mix_by(set->hash_key[1] | 1, set->hash_key[2] | 1, hash, word);
}

/*
 * The high bit of each byte of `word` that is `least` or more; the bytes have no high bit of their
 * own.
 */
static __always_inline __u64 bytes_from(__u64 word, __u8 least)
{
	return word + (0x80 - least) * EVERY_BYTE;
}

static __always_inline __u64 lower_case(__u64 word)
{
	__u64 low = word & ~HIGH_BITS;
	__u64 upper = bytes_from(low, 'A') & ~bytes_from(low, 'Z' + 1) & ~word & HIGH_BITS;

	return word | upper >> 2;
}

/* Not 0 if a byte is none of a-z, 0-9, hyphen and underscore. */
static __always_inline __u64 odd_bytes(__u64 word)
{
	__u64 low = word & ~HIGH_BITS;
	__u64 usual = (bytes_from(low, 'a') & ~bytes_from(low, 'z' + 1)) |
		      (bytes_from(low, '0') & ~bytes_from(low, '9' + 1)) |
		      (bytes_from(low, '-') & ~bytes_from(low, '-' + 1)) |
		      (bytes_from(low, '_') & ~bytes_from(low, '_' + 1));

	return (~usual | word) & HIGH_BITS;
}

/* Turns the hashes of labels into those of the suffixes that begin with them. */
static __always_inline void hash_suffixes(struct scratch *s)
{
	__u32 key = 0, label;
	struct settings *set = bpf_map_lookup_elem(&settings, &key);
	__u64 hash, first, second;

	if (!set)
		return;
	hash = set->hash_key[3];
	first = set->hash_key[1] | 1;
	second = set->hash_key[2] | 1;
	label = s->labels & LABELS_MAX;
	for (int i = 0; i < LABELS_MAX; i++) {
		if (label == 0)
			break;
		/*
		 * With the unknown zero each turn has the same range, and the verifier sees it as
		 * seen.
		 */
		label = (label - 1 + s->zero) & LABELS_MAX;
		hash = mix_by(first, second, hash, s->label_hash[label]);
		s->label_hash[label] = hash;
	}
	s->hash = hash;
}

/* Takes a word of a label: its canonical form goes to `to`. Gives the hash with it. */
static __always_inline __u64 take_word(struct scratch *s, const struct settings *set, __u64 hash,
				       __u64 word, __u64 filler, __u8 *to)
{
	word = lower_case(word & ~filler);
	if (odd_bytes(word | ('0' * EVERY_BYTE & filler)))
		s->odd = 1;
	*(__u64 *)to = word;
	return mix(set, hash, word);
}

/*
 * Reads the words of a label but for the last, of which there are some: `bytes` is more than 8.
 * Their canonical form goes to `place` of the texts. Gives their hash. Verified once, by itself.
 */
__attribute__((noinline)) __u64 read_words(struct scratch *s, __u32 at, __u32 place, __u32 bytes)
{
	__u32 key = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &key);
	__u8 *from, *to;
	__u64 hash;

	if (!s || !set)
		return 0;
	from = s->message + (at & MESSAGE_MAX);
	to = s->text + (place & (TEXT_BYTES - 1));
	bytes &= LABEL_MAX;
	hash = set->hash_key[0] ^ bytes;
	for (; bytes > 8; bytes -= 8) {
		hash = take_word(s, set, hash, *(__u64 *)from, 0, to);
		from += 8;
		to += 8;
	}
	return hash;
}

/*
 * Reads labels from `at` on, up to the root label or a pointer, behind the labels that are read
 * already; their canonical form goes into the text at `place`. Gives the position of the root label
 * or the pointer, or 0 if the name is malformed.
 */
__attribute__((noinline)) int read_labels(struct scratch *s, __u32 at, __u32 place)
{
	__u32 labels, bytes, length, whole, key = 0;
	struct settings *set = bpf_map_lookup_elem(&settings, &key);
	__u64 hash, filler;

	if (!s || !set)
		return 0;
	place = (place & (TEXT_NAMES - 1)) * TEXT_STRIDE;
	labels = s->labels;
	bytes = s->bytes;
	for (int i = 0; i <= LABELS_MAX; i++) {
		/* As in hash_suffixes: the masks change nothing, but bound each turn alike. */
		at = (at + s->zero) & MESSAGE_MAX;
		labels = (labels + s->zero) & LABELS_MAX;
		bytes = (bytes + s->zero) & TEXT_MASK;
		if (at >= s->message_bytes)
			return 0;
		length = s->message[at];
		if (length == 0 || length >= POINTER_BITS) {
			s->text[place + bytes] = 0; /* overwritten behind a pointer */
			s->labels = labels;
			s->bytes = bytes;
			return at;
		}
		if (length > LABEL_MAX || at + 1 + length > s->message_bytes ||
		    bytes + 1 + length >= NAME_MAX_BYTES)
			return 0;
		s->text[place + bytes] = length;
		s->label_at[labels] = bytes;
		at++;
		bytes++;
		hash = set->hash_key[0] ^ length;
		if (length > 8)
			hash = read_words(s, at, place + bytes, length);
		whole = (length - 1) & ~7U & LABEL_MAX;	 /* bytes of these words */
		filler = ~(~0ULL >> (-length * 8 & 63)); /* what is behind the label */
		s->label_hash[labels] = take_word(s, set, hash, *(__u64 *)(s->message + at + whole),
						  filler, s->text + place + bytes + whole);
		at += length;
		bytes += length;
		labels++;
	}
	return 0;
}

static __always_inline void begin_name(struct scratch *s)
{
	s->labels = 0;
	s->bytes = 0;
	s->odd = 0;
	s->end = 0;
}

/*
 * Reads the first name of the message, to place 0. It can have no pointer: before it is but the
 * header. As read_name.
 */
static __always_inline __u32 read_first_name(struct scratch *s)
{
	__u32 stop;

	begin_name(s);
	stop = read_labels(s, HEADER_BYTES, 0);
	if (stop == 0 || s->message[stop & MESSAGE_MAX])
		return 0;
	s->bytes++;
	hash_suffixes(s);
	return stop + 1;
}

/*
 * Reads the name at `position` of the message into the name fields of scratch and its canonical
 * form into the text at `place`. Gives the position behind the name, or 0 if it is malformed. A
 * pointer must lead to before the piece of the name that it ends, and never into the header: so it
 * cannot loop.
 */
__attribute__((noinline)) int read_name(struct scratch *s, __u32 position, __u32 place)
{
	__u32 at = position, stop;

	if (!s)
		return 0;
	begin_name(s);
	for (int i = 0; i <= POINTERS_MAX; i++) {
		s->piece = at; /* in memory, where the verifier does not follow how it shrinks */
		stop = read_labels(s, at, place);
		if (stop == 0)
			return 0;
		at = s->message[stop & MESSAGE_MAX];
		if (at == 0) {
			s->bytes++;
			hash_suffixes(s);
			return s->end ? s->end : stop + 1;
		}
		if (stop + 2 > s->message_bytes)
			return 0;
		at = (at & ~POINTER_BITS) << 8 | s->message[(stop + 1) & MESSAGE_MAX];
		if (at < HEADER_BYTES || at >= s->piece)
			return 0;
		if (i == 0) /* which the verifier knows */
			s->end = stop + 2;
	}
	return 0;
}

/*
 * Notes what a cell has for the name itself, if `label` is its first one, or for names below. Gives
 * whether it has anything. The name itself has all that matches it in its set; names below are held
 * against the list besides.
 */
static __always_inline bool note_cell(struct scratch *s, const struct name_cell *record,
				      __u32 label, __u32 generation)
{
	generation &= GENERATIONS - 1;
	if (label == 0) {
		s->match_set = record->exact[generation];
		s->list = 0;
	} else {
		s->match_set = record->below[generation];
		s->list = record->list[generation];
	}
	return s->match_set || s->list;
}

/*
 * Whether a pattern's name in name_cells from `cell` on is the suffix that is looked up, and has
 * anything for it, which is noted.
 */
__attribute__((noinline)) int take_cell(struct scratch *s, __u32 cell, __u32 label,
					__u32 generation)
{
	struct name_cell *record = bpf_map_lookup_elem(&name_cells, &cell);
	__u32 in_cell = offsetof(struct name_cell, text), at, bytes;

	if (!s || !record || record->length != s->suffix_bytes)
		return 0;
	if (!note_cell(s, record, label, generation))
		return 0;
	at = s->suffix_at;
	bytes = s->suffix_bytes;
	/* In words: there is room behind the texts, and behind a name in its cells. */
	for (__u32 i = 0; i <= NAME_MAX_BYTES / 8; i++) {
		__u64 differing;

		if (in_cell == NAME_CELL_BYTES) {
			cell++;
			record = bpf_map_lookup_elem(&name_cells, &cell);
			if (!record)
				return 0;
			in_cell = 0;
		}
		differing = *(__u64 *)(s->text + ((at + i * 8) & (TEXT_BYTES - 1))) ^
			    *(__u64 *)((__u8 *)record + in_cell);
		if (bytes <= 8)
			return differing << ((64 - bytes * 8) & 63) == 0 || bytes == 0;
		if (differing)
			return 0;
		in_cell += 8;
		bytes -= 8;
	}
	return 0;
}

/* The bucket that a hash leads to, or a later one; the first comes behind the last. */
static __always_inline __u32 bucket_of(const struct settings *set, __u64 hash, __u32 probe)
{
	__u32 bucket = ((hash & ~0U) * set->index_buckets >> 32) + probe;

	return bucket < set->index_buckets ? bucket : bucket - set->index_buckets;
}

/*
 * The cell in which a name begins that is at home. It is made of other bits than the bucket, so
 * that names which share a bucket are apart.
 */
static __always_inline __u32 home_of_name(const struct settings *set, __u64 hash)
{
	return (hash >> 32) * set->name_cells >> 32;
}

/*
 * Whether the suffix that begins with `label` is known, of the name that was read last, at `place`;
 * then its match set and list are noted.
 */
__attribute__((noinline)) int match_suffix(struct scratch *s, __u32 place, __u32 label,
					   __u32 generation)
{
	__u32 bucket = 0; /* one key for both maps: the stack is short */
	struct settings *set = bpf_map_lookup_elem(&settings, &bucket);
	__u64 suffix;

	if (!s || !set)
		return 0;
	label &= LABELS_MAX;
	suffix = s->label_hash[label];
	s->suffix_at = s->label_at[label];
	s->suffix_bytes = s->bytes - 1 - s->suffix_at; /* tables hold no root label */
	s->suffix_at += (place & (TEXT_NAMES - 1)) * TEXT_STRIDE;
	for (int i = 0; i < BUCKET_PROBES; i++) {
		struct name_bucket *slots;
		bool full = true;

		bucket = bucket_of(set, suffix, i);
		slots = bpf_map_lookup_elem(&name_index, &bucket);
		if (!slots)
			return 0;
#pragma unroll
		for (int j = 0; j < BUCKET_SLOTS; j++) {
			__u64 slot = slots->slots[j];

			if (slot == 0)
				full = false;
			else if ((slot ^ suffix) >> 24 == 0 &&
				 take_cell(s, (slot & 0xffffff) - 1, label, generation))
				return 1;
		}
		if (!full)
			return 0;
	}
	return 0;
}

/* Where a suffix is looked up first: its bucket, and its cell if that is at home. */
static __always_inline const void *first_bucket(const struct settings *set, __u64 hash)
{
	__u32 key = bucket_of(set, hash, 0);

	return bpf_map_lookup_elem(&name_index, &key);
}

static __always_inline const void *home_cell(const struct settings *set, __u64 hash)
{
	__u32 key = home_of_name(set, hash);

	return bpf_map_lookup_elem(&name_cells, &key);
}

/* Notes the match set and the list of the longest suffix of the name that has any. */
static __always_inline bool match_suffixes(struct scratch *s, __u32 place, __u32 generation)
{
	for (__u32 label = 0; label < LABELS_MAX; label++) {
		if (label >= s->labels)
			return false;
		if (match_suffix(s, place, label, generation))
			return true;
	}
	return false;
}

/*
 * Whether `bytes` bytes at `from` of a pattern's text are those at `at` of the names' text. In
 * words: there is room behind both.
 */
__attribute__((noinline)) int same_text(struct scratch *s, struct general_pattern *pattern,
					__u32 from, __u32 at, __u32 bytes)
{
	if (!s || !pattern)
		return 0;
	for (int i = 0; i <= NAME_MAX_BYTES / 8; i++) {
		__u64 differing;

		/* As in hash_suffixes: the sums change nothing, but make each turn alike. */
		at = (at + s->zero) & (TEXT_BYTES - 1);
		from = (from + s->zero) & 0xff;
		differing = *(__u64 *)(s->text + at) ^ *(__u64 *)(pattern->text + from);
		if (bytes <= 8)
			return differing << ((64 - bytes * 8) & 63) == 0 || bytes == 0;
		if (differing)
			return 0;
		at += 8;
		from += 8;
		bytes -= 8;
	}
	return 0;
}

/* Whether a general pattern matches the name that was read last, which is below its base. */
static __always_inline bool is_general(struct scratch *s, struct general_pattern *pattern,
				       __u32 place)
{
	__u32 text, head, star, label, bytes, labels;

	head = pattern->head_bytes;
	labels = pattern->base_labels + pattern->head_labels;
	if (s->labels <= labels)
		return 0;
	labels = s->labels - labels - 1; /* before the head, or behind it */
	text = (place & (TEXT_NAMES - 1)) * TEXT_STRIDE;
	if (pattern->form == GENERAL_LABELS)
		return same_text(s, pattern, 0, text, head);
	if ((pattern->form == GENERAL_WITHIN) != (labels == 0))
		return 0;
	label = s->labels - pattern->base_labels - 1;
	star = text + s->label_at[label & LABELS_MAX];
	bytes = s->text[star & (TEXT_BYTES - 1)];
	if (bytes < (__u32)pattern->prefix_bytes + pattern->suffix_bytes)
		return 0;
	star++;
	if (!same_text(s, pattern, 0, text + s->label_at[labels & LABELS_MAX], head) ||
	    !same_text(s, pattern, head, star, pattern->prefix_bytes))
		return 0;
	return same_text(s, pattern, head + pattern->prefix_bytes,
			 star + bytes - pattern->suffix_bytes, pattern->suffix_bytes);
}

/* Forgets the match sets of names that were matched before. */
static __always_inline void match_anew(struct scratch *s)
{
	s->set_count = 0;
	s->sets_over_limit = 0;
}

/* Adds a match set of the name at place `index`: for the addresses that it owns. */
__attribute__((noinline)) int add_match(struct scratch *s, __u32 match_set, __u32 index)
{
	__u32 count;

	if (!s || match_set == 0)
		return 0;
	count = s->set_count;
	for (__u32 i = 0; i < LEARNED_SETS; i++) {
		if (i >= count)
			break;
		if (s->sets[i].match_set == match_set)
			return 0; /* for every address of this name too, since it came earlier */
	}
	/* Anew: the verifier has learned another count from each turn, and would follow all. */
	count = *(volatile __u32 *)&s->set_count;
	if (count >= LEARNED_SETS) {
		s->sets_over_limit++;
		return 0;
	}
	s->sets[count].match_set = match_set;
	s->sets[count].names = index + 1;
	s->set_count = count + 1;
	return 0;
}

/* The match set that a cell refers to. */
static __always_inline __u32 set_referred(__u32 reference, __u32 generation)
{
	__u32 place = reference >> MAPPING_MATCH_SET_BITS;
	const struct common_match_sets *common;

	if (place == 0)
		return reference;
	common = bpf_map_lookup_elem(&common_sets, &generation);
	return common ? common->sets[place] : 0;
}

/*
 * Holds the name against the general pattern at a place in the generation, counted from 1. Gives
 * the place of the next one. Verified once, by itself.
 */
__attribute__((noinline)) int match_general(struct scratch *s, __u32 place, __u32 list,
					    __u32 generation)
{
	__u32 key = (generation & (GENERATIONS - 1)) * GENERAL_PATTERNS + list - 1;
	struct general_pattern *pattern = bpf_map_lookup_elem(&patterns, &key);

	if (!s || !pattern)
		return 0;
	if (is_general(s, pattern, place))
		add_match(s, pattern->match_set, place);
	return pattern->next;
}

/* Holds the name against the general patterns of a list. */
static __always_inline void match_list(struct scratch *s, __u32 place, __u32 list, __u32 generation)
{
	for (int i = 0; i < GENERAL_OF_NAME && list; i++)
		list = match_general(s, place, list, generation);
}

/*
 * Adds the match sets of the name that was read last, whose text is at `place`: that of every name,
 * that of its longest known suffix, and those of the general patterns that match.
 */
__attribute__((noinline)) int match_name(struct scratch *s, __u32 place, __u32 generation)
{
	struct generation_flags *whole;
	__u32 list;

	if (!s)
		return 0;
	generation &= GENERATIONS - 1;
	whole = bpf_map_lookup_elem(&generations, &generation);
	if (!whole)
		return 0;
	if (whole->every)
		add_match(s, whole->every, place);
	if (s->odd)
		return 0;
	list = whole->list;
	if (match_suffixes(s, place, generation)) {
		add_match(s, set_referred(s->match_set, generation), place);
		list = s->list;
	}
	match_list(s, place, list, generation);
	return 0;
}
