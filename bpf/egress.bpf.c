//go:build ignore

/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * Judges new connections: 1 for what is denied, 0 for all else. Fails closed for a selected
 * workload: a packet that cannot be read, comes from an interface that is not known yet or from a
 * process whose control group cannot be told, is denied.
 */
#include "flow.h"
#include "mapping.h"
#include "stage.h"
#include "verdict.h"
#include "workload.h"

enum { DHCP_SERVER = 67, DHCP_CLIENT = 68, DHCPV6_CLIENT = 546, DHCPV6_SERVER = 547 };
enum { MLD_FIRST = 130, MLD_LAST = 132, ND_FIRST = 133, ND_LAST = 137, MLD2_REPORT = 143 };

/*
 * Asks every live match set in a cell, if it is of the address and page. Gives whether there may be
 * a next page.
 */
static __always_inline int judge_mapping(struct judgement *judgement, struct mapping *cell,
					 const __u64 *words, __u32 page)
{
	__u64 now_ns;
	__u32 owner;

	if (!is_of(cell, words, page, &owner))
		return 0;
	if (ends_after(STAGE_MAPPINGS))
		return 0;
	cell = behind_owner(cell, owner);
	now_ns = bpf_ktime_get_boot_ns();
	note_use(cell, now_ns);
	for (__u32 i = 0; i < MAPPING_SLOTS; i++) {
		__u64 slot = load_word(&cell->slots[i]);

		if (!expiry_of(slot))
			return 0; /* slots fill in order, and pages too */
		if (!slot_live(slot, now_ns))
			continue;
		/* Now that it is read: in a moment the cell may be another address's. */
		if (!still_owned(cell, owner, slot))
			return 0;
		judge_component(judgement,
				COMPONENT_MATCH_SET << COMPONENT_SHIFT | (slot & SLOT_MATCH_SET));
	}
	return 1;
}

/* The same of one that is not the home. Verified once, by itself. */
__attribute__((noinline)) int judge_away(struct judgement *judgement, struct cell_search *m,
					 __u32 place)
{
	struct mapping *cell;
	__u64 words[2];

	if (!judgement || !m)
		return 0;
	words[0] = m->words[0];
	words[1] = m->words[1];
	cell = cell_at(cell_of_place(m, place));
	return cell ? judge_mapping(judgement, cell, words, m->page) : 0;
}

/*
 * Asks every live match set in one page of the destination. Gives whether there may be a next one.
 * Verified once, by itself.
 */
__attribute__((noinline)) int judge_names(struct judgement *judgement,
					  const struct address *destination, __u32 page)
{
	struct cell_search m = {.page = page};
	struct mapping *home;
	__u32 away;
	int more;

	if (!judgement || !destination)
		return 0;
	search_for(&m, destination);
	if (!locate(&m))
		return 0;
	home = cell_at(m.home);
	if (!home)
		return 0;
	more = judge_mapping(judgement, home, m.words, page);
	away = load_half(&home->used);
	if (!(away & MAPPING_AWAY))
		return more;
	for (__u32 place = 1; place < MAPPING_PLACES; place++) {
		if (looks_at(away, place))
			more |= judge_away(judgement, &m, place);
	}
	return more;
}

/* Whether a packet to the address stays on its link: to a group, or fe80::/10. */
static __always_inline bool stays_on_link(const struct address *address)
{
	return address->bytes[0] == 0xff ||
	       (address->bytes[0] == 0xfe && (address->bytes[1] & 0xc0) == 0x80);
}

/*
 * Whether a packet of ICMPv6 keeps a link going: neighbour discovery, and multicast listener
 * discovery. A workload may write any type: of what it sends to one host, that counts which a
 * neighbour of its own would get, of whom the first half of the address is the same. The node's own
 * kernel asks neighbours wherever its routes say that they are.
 */
static __always_inline bool keeps_link(const struct packet *packet, enum origin origin)
{
	const __u64 *from = (const __u64 *)packet->source.bytes;
	const __u64 *to = (const __u64 *)packet->destination.bytes;
	__u32 type = packet->icmp_type;

	if ((type >= MLD_FIRST && type <= MLD_LAST) || type == MLD2_REPORT)
		return origin == ORIGIN_LOCAL || packet->destination.bytes[0] == 0xff;
	if (type < ND_FIRST || type > ND_LAST)
		return false;
	return origin == ORIGIN_LOCAL || stays_on_link(&packet->destination) || from[0] == to[0];
}

/*
 * Whether a datagram is a DHCP client's. Of a workload it goes to all on its link, as what finds a
 * server does: to one host anybody could send who may bind the port. A lease that is not renewed
 * from its server is renewed from all. Denied to the node itself, its client might give up its
 * address.
 */
static __always_inline bool is_dhcp(const struct packet *packet, enum origin origin)
{
	__u32 from = bpf_ntohs(packet->source_port), to = bpf_ntohs(packet->destination_port);
	const __u32 *words = (const __u32 *)packet->destination.bytes;

	if (packet->version == 4)
		return from == DHCP_CLIENT && to == DHCP_SERVER &&
		       (origin == ORIGIN_LOCAL || words[3] == ~0U);
	return from == DHCPV6_CLIENT && to == DHCPV6_SERVER &&
	       (origin == ORIGIN_LOCAL || stays_on_link(&packet->destination));
}

/* Whether the connection is one that no policy may stop: otherwise a node could lock itself out. */
static __always_inline bool always_allowed(const struct packet *packet, enum origin origin)
{
	struct endpoint_key key = {
		.address = packet->destination,
		.port = packet->destination_port,
		.protocol = packet->protocol,
	};
	enum endpoint_flag *flags;

	if (packet->protocol == PROTOCOL_ICMPV6 && packet->version == 6)
		return keeps_link(packet, origin);
	if (packet->protocol == IPPROTO_UDP && is_dhcp(packet, origin))
		return true;
	if (packet->protocol != IPPROTO_UDP && packet->protocol != IPPROTO_TCP)
		return false;
	flags = bpf_map_lookup_elem(&endpoints, &key);
	if (!flags)
		return false;
	return *flags & ENDPOINT_RESOLVER || (origin == ORIGIN_LOCAL && *flags & ENDPOINT_SERVER);
}

static __always_inline int deny(void)
{
	count(COUNTER_VERDICT_DENY);
	return 1;
}

static __always_inline int allow(void)
{
	count(COUNTER_VERDICT_ALLOW);
	return 0;
}

/* Denies what the rules cannot judge; the flow's reason says why. */
static __always_inline int deny_for(struct __sk_buff *skb, const struct packet *packet,
				    struct flow *flow)
{
	flow->flags |= FLOW_DENIED;
	tell_flow(skb, packet, flow);
	return deny();
}

static __always_inline int deny_unreadable(struct __sk_buff *skb, const struct packet *packet,
					   struct flow *flow)
{
	count(COUNTER_VERDICT_MALFORMED);
	flow->reason = FLOW_UNREADABLE;
	return deny_for(skb, packet, flow);
}

/* Why the workload of a connection is not known; it is counted. */
static __always_inline enum flow_reason reason_of(enum identity identity)
{
	if (identity == IDENTITY_UNKNOWN_INTERFACE) {
		count(COUNTER_UNKNOWN_INTERFACE);
		return FLOW_UNKNOWN_INTERFACE;
	}
	return identity == IDENTITY_TOO_MANY_CGROUPS ? FLOW_TOO_MANY_CGROUPS : FLOW_UNKNOWN_CGROUP;
}

static __always_inline int audit(struct __sk_buff *skb, const struct packet *packet,
				 struct flow *flow)
{
	count(COUNTER_VERDICT_AUDIT);
	flow->flags |= FLOW_AUDITED;
	tell_flow(skb, packet, flow);
	return 0;
}

/* Asks the rules of all workloads that the connection is of, about all that its destination is. */
static __always_inline void weigh(struct judgement *judgement, const struct packet *packet,
				  __u32 flags)
{
	judgement->protocol = packet->protocol == PROTOCOL_ICMPV6 ? IPPROTO_ICMP : packet->protocol;
	judgement->port = bpf_ntohs(packet->destination_port);
	/* No rule denies; no rule for a question would let it pass. */
	judgement->first[ENFORCED] |= 1;
	judgement->first[AUDITED] |= 1;
	if (judgement->flags & WORKLOAD_ANYWHERE)
		judge_component(judgement, COMPONENT_ANY << COMPONENT_SHIFT);
	if (flags & GENERATION_DESTINATIONS) {
		__u32 *class =
			find_prefix(&destinations, judgement->generation, &packet->destination);

		if (class)
			judge_component(judgement, COMPONENT_CIDR << COMPONENT_SHIFT | *class);
	}
	for (__u32 page = 0; page < MAPPING_PAGES; page++) {
		if (!judge_names(judgement, &packet->destination, page))
			break;
	}
}

/* The verdict of the policies that select the connection. */
static __always_inline int judge(struct __sk_buff *skb, const struct packet *packet,
				 enum origin origin, struct judgement *judgement, __u32 flags,
				 struct flow *flow)
{
	bool denied, reported;

	weigh(judgement, packet, flags);
	if (ends_after(STAGE_MAPPINGS))
		return 0;
	denied = judgement->flags & WORKLOAD_ENFORCED && denies(judgement->first[ENFORCED]);
	reported = judgement->flags & WORKLOAD_AUDITED && denies(judgement->first[AUDITED]);
	if ((!denied && !reported) || always_allowed(packet, origin))
		return allow();
	flow->enforced = position_of(judgement->first[ENFORCED]);
	flow->audited = position_of(judgement->first[AUDITED]);
	if (flow->enforced != NO_RULE)
		flow->flags |= FLOW_ENFORCED_RULE;
	if (flow->audited != NO_RULE)
		flow->flags |= FLOW_AUDITED_RULE;
	if (!denied)
		return audit(skb, packet, flow);
	flow->flags |= reported ? FLOW_DENIED | FLOW_AUDITED : FLOW_DENIED;
	tell_flow(skb, packet, flow);
	return deny();
}

/* Judges a connection whose addresses were read. */
static __always_inline int judge_connection(struct __sk_buff *skb, struct packet *packet,
					    enum origin origin,
					    const struct generation_flags *whole, struct flow *flow)
{
	struct judgement judgement;
	enum identity identity;
	bool readable;

	begin(&judgement, flow->generation, whole);
	identity = identify(skb, packet, origin, whole, &judgement);
	if (identity != IDENTITY_KNOWN) {
		if (read_transport(skb, packet) && always_allowed(packet, origin))
			return allow();
		flow->reason = reason_of(identity);
		return deny_for(skb, packet, flow);
	}
	if (judgement.workload_count == 0 || ends_after(STAGE_WORKLOAD))
		return 0;
	readable = read_transport(skb, packet);
	if (ends_after(STAGE_TRANSPORT))
		return 0;
	if (readable)
		return judge(skb, packet, origin, &judgement, whole->flags, flow);
	if (judgement.flags & WORKLOAD_ENFORCED)
		return deny_unreadable(skb, packet, flow);
	flow->reason = FLOW_UNREADABLE;
	return audit(skb, packet, flow);
}

static __always_inline int egress(struct __sk_buff *skb, enum origin origin)
{
	struct generation_flags *generation;
	struct packet packet = {};
	struct flow flow = {};
	struct state *now;
	__u32 zero = 0;

	if (ends_after(STAGE_NOTHING))
		return 0;
	now = bpf_map_lookup_elem(&state, &zero);
	if (!now)
		return 0;
	flow.generation = *(volatile __u32 *)&now->active & (GENERATIONS - 1);
	generation = bpf_map_lookup_elem(&generations, &flow.generation);
	if (!generation || !(generation->flags & GENERATION_ENFORCES))
		return 0;
	if (ends_after(STAGE_GENERATION))
		return 0;
	flow.flags = origin == ORIGIN_LOCAL ? FLOW_LOCAL : 0;
	if (!read_addresses(skb, &packet))
		return deny_unreadable(skb, &packet, &flow);
	if (ends_after(STAGE_HEADERS))
		return 0;
	return judge_connection(skb, &packet, origin, generation, &flow);
}

SEC("socket")
int egress_forwarded(struct __sk_buff *skb)
{
	return egress(skb, ORIGIN_FORWARDED);
}

SEC("socket")
int egress_local(struct __sk_buff *skb)
{
	return egress(skb, ORIGIN_LOCAL);
}
