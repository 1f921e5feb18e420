//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
#include "maps.h"
#include "scratch.h"

SEC("socket")
int egress_forwarded(struct __sk_buff *skb)
{
	return skb->len == 0;
}
SEC("socket")
int egress_local(struct __sk_buff *skb)
{
	return skb->len == 0;
}
