/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#pragma once

#include "types.h"

/* Reads a word once: another CPU may change it at any moment. */
static __always_inline __u64 load_word(const __u64 *word)
{
	return *(const volatile __u64 *)word;
}
