/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#pragma once

#include "maps.h"

/*
 * Atomic, since on one CPU a softirq or another task may interrupt a program between load and
 * store.
 */
static __always_inline void count_many(enum counter counter, __u64 events)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		__sync_fetch_and_add(value, events);
}

static __always_inline void count(enum counter counter)
{
	count_many(counter, 1);
}
