/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#pragma once

#include "types.h"

/* Has the compiler put what follows aside: what is usual is in few lines of the cache. */
#define unlikely(condition) __builtin_expect(!!(condition), 0)

/*
 * Has the CPU fetch what will be read a little later, and go on: lines of several tables come from
 * memory at the same time, and while the message is read.
 */
static __always_inline void prefetch(const void *from)
{
	(void)*(const volatile __u64 *)from;
}

/* Reads a word once: another CPU may change it at any moment. */
static __always_inline __u64 load_word(const __u64 *word)
{
	return *(const volatile __u64 *)word;
}

/* The same of half a word. */
static __always_inline __u32 load_half(const __u32 *half)
{
	return *(const volatile __u32 *)half;
}

/*
 * Gives 0, but only when the value is there: what is loaded from an address that this was added to
 * is loaded after the value, where a processor may turn loads around (arm64).
 */
static __always_inline __u64 behind(__u64 value)
{
	asm volatile("%0 &= 0" : "+r"(value));
	return value;
}
