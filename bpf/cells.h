/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Homes in hosts and verdicts: the cell that the keys of a chain begin in. cells.go has the same
 * hash for the side that fills the tables. Each generation has a part of its own, which is written
 * only while no program can be reading it: so nothing here minds who writes.
 */
#pragma once

#include "types.h"

#define CELL_MIX_1 0xbf58476d1ce4e5b9ULL
#define CELL_MIX_2 0x94d049bb133111ebULL

static __always_inline __u64 mix_cell(__u64 hash)
{
	hash = (hash ^ hash >> 30) * CELL_MIX_1;
	return (hash ^ hash >> 27) * CELL_MIX_2;
}

/* The words are those of the prefix, the length as host_cell has it. */
static __always_inline __u32 home_of_host(__u32 generation, __u32 seed, __u32 bits,
					  const __u64 *words, __u32 length)
{
	__u64 hash = mix_cell(words[0] + ((__u64)seed << 32)) ^ words[1];

	hash = mix_cell(hash + length * CELL_MIX_1);
	return generation * HOST_CELLS + (hash >> 32 & ((1ULL << (bits & 15)) - 1));
}

static __always_inline __u32 home_of_verdict(__u32 generation, __u32 seed, __u32 bits,
					     __u32 workload, __u32 component)
{
	__u64 hash = mix_cell(((__u64)workload << 32 | component) + seed * CELL_MIX_1);

	return generation * VERDICT_CELLS + (hash >> 32 & ((1ULL << (bits & 31)) - 1));
}
