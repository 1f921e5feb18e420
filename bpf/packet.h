/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Network and transport headers. Offset 0 of a packet is its IP header. */
#pragma once

#include "types.h"
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>

#define EXTENSION_HEADERS_MAX 8 /* so many of them in one packet make it unreadable */
#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define UDP_HEADER 8

/* What IPv6 calls next header, where it is not a protocol of its own. */
enum { NEXT_HOP_BY_HOP = 0, NEXT_ROUTING = 43, NEXT_FRAGMENT = 44, NEXT_AUTHENTICATION = 51 };
enum { NEXT_DESTINATION = 60, NEXT_MOBILITY = 135, NEXT_HIP = 139, NEXT_SHIM6 = 140 };
enum { PROTOCOL_ICMPV6 = 58, PROTOCOL_SCTP = 132 };

struct packet {
	struct address source;
	struct address destination;
	__u32 offset;	/* of the header of `protocol` */
	__u8 protocol;	/* of the last header that was read */
	__u8 version;	/* of IP */
	__u8 icmp_type; /* of ICMP and ICMPv6 */
	bool fragment;	/* not the first one: no transport header */
	__be16 source_port;
	__be16 destination_port;
	__be16 udp_bytes; /* length that a UDP header tells */
};

/* The one way by which packets are read: direct access is refused in xt_bpf. */
static __always_inline bool load_bytes(const struct __sk_buff *skb, __u32 offset, void *to,
				       __u32 bytes)
{
	return bpf_skb_load_bytes(skb, offset, to, bytes) == 0;
}

static __always_inline void map_ipv4(struct address *address, const __u8 *bytes)
{
	__u32 *words = (__u32 *)address->bytes;

	words[0] = 0;
	words[1] = 0;
	words[2] = bpf_htonl(0xffff);
	words[3] = *(const __u32 *)bytes;
}

static __always_inline bool read_ipv6(const struct __sk_buff *skb, struct packet *packet)
{
	__u64 header[IPV6_HEADER / 8];

	if (!load_bytes(skb, 0, header, sizeof(header)))
		return false;
	packet->protocol = ((__u8 *)header)[6];
	packet->offset = IPV6_HEADER;
	packet->fragment = false;
	__builtin_memcpy(&packet->source, &header[1], sizeof(struct address));
	__builtin_memcpy(&packet->destination, &header[3], sizeof(struct address));
	return true;
}

/* Reads the IP header without extensions: whatever follows, the addresses are known. */
static __always_inline bool read_addresses(const struct __sk_buff *skb, struct packet *packet)
{
	__u32 words[IPV4_HEADER / 4];
	const __u8 *header = (const __u8 *)words;

	if (!load_bytes(skb, 0, words, sizeof(words)))
		return false;
	packet->version = header[0] >> 4;
	if (packet->version == 6)
		return read_ipv6(skb, packet);
	packet->offset = (header[0] & 15) * 4;
	if (packet->version != 4 || packet->offset < IPV4_HEADER)
		return false;
	packet->protocol = header[9];
	packet->fragment = (words[1] & bpf_htonl(0x1fff)) != 0;
	map_ipv4(&packet->source, header + 12);
	map_ipv4(&packet->destination, header + 16);
	return true;
}

/*
 * Walks over the extension headers of IPv6 to the transport header. Verified once, by itself.
 */
__attribute__((noinline)) int skip_extensions(struct __sk_buff *skb, struct packet *packet)
{
	__u8 header[4];

	if (!packet)
		return false;
	for (int i = 0; i < EXTENSION_HEADERS_MAX; i++) {
		__u8 next = packet->protocol;

		if (next != NEXT_HOP_BY_HOP && next != NEXT_ROUTING && next != NEXT_FRAGMENT &&
		    next != NEXT_AUTHENTICATION && next != NEXT_DESTINATION &&
		    next != NEXT_MOBILITY && next != NEXT_HIP && next != NEXT_SHIM6)
			return true;
		if (!load_bytes(skb, packet->offset, header, sizeof(header)))
			return false;
		packet->protocol = header[0];
		if (next == NEXT_FRAGMENT) {
			packet->offset += 8;
			packet->fragment = header[2] != 0 || (header[3] & 0xf8) != 0;
		} else if (next == NEXT_AUTHENTICATION) {
			packet->offset += (header[1] + 2) * 4;
		} else {
			packet->offset += (header[1] + 1) * 8;
		}
		if (packet->fragment)
			return false;
	}
	return false;
}

/* Reads what the rules ask about the transport header. Call read_addresses first. */
static __always_inline bool read_transport(struct __sk_buff *skb, struct packet *packet)
{
	__be16 begin[4]; /* of the header: each of the three protocols has at least so much */

	packet->source_port = 0;
	packet->destination_port = 0;
	packet->icmp_type = 0;
	packet->udp_bytes = 0;
	if (packet->version == 6 && !skip_extensions(skb, packet))
		return false;
	if (packet->fragment)
		return false;
	switch (packet->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case PROTOCOL_SCTP:
		if (!load_bytes(skb, packet->offset, begin, sizeof(begin)))
			return false;
		packet->source_port = begin[0];
		packet->destination_port = begin[1];
		packet->udp_bytes = begin[2];
		return true;
	case IPPROTO_ICMP:
	case PROTOCOL_ICMPV6:
		return load_bytes(skb, packet->offset, &packet->icmp_type, 1);
	}
	return true;
}
