package explain

import (
	"fmt"
	"net/netip"
	"slices"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// Always is what a node allows whatever the policies say, as far as it differs from node to node.
type Always struct {
	Resolvers []netip.AddrPort
	// Servers are open to the node itself.
	Servers []netip.AddrPort
	// Own reports whether an address is one of the node's.
	Own func(netip.Addr) bool
}

// Ports of DHCP: a client asks from its own port. As bpf/egress.bpf.c has them.
const (
	dhcpServer   = 67
	dhcpClient   = 68
	dhcpv6Client = 546
	dhcpv6Server = 547
)

// own reports whether an address is one of the node's; loopback is always.
func (a *Always) own(address netip.Addr) bool {
	return address.IsLoopback() || a != nil && a.Own != nil && address.IsValid() && a.Own(address)
}

// exempt returns why a connection passes that the policies would deny.
func (a *Always) exempt(c ruleset.Connection, sourcePort uint16) namewardv1.ExplainConnectionResponse_AlwaysAllowed {
	to := netip.AddrPortFrom(c.Destination, c.Port)
	switch {
	case c.Protocol == ruleset.UDP && sourcePort != 0 && sourcePort == dhcpClientOf(c):
		return namewardv1.ExplainConnectionResponse_DHCP
	case a == nil || c.Protocol != ruleset.UDP && c.Protocol != ruleset.TCP:
	case slices.Contains(a.Resolvers, to):
		return namewardv1.ExplainConnectionResponse_TRUSTED_RESOLVER
	case c.Local && c.Protocol == ruleset.TCP && slices.Contains(a.Servers, to):
		return namewardv1.ExplainConnectionResponse_POLICY_SERVER
	}
	return namewardv1.ExplainConnectionResponse_ALWAYS_ALLOWED_UNSPECIFIED
}

// dhcpClientOf returns the port from which a DHCP client would ask, 0 for other connections. One behind the node asks
// all on its link.
func dhcpClientOf(c ruleset.Connection) uint16 {
	switch to := c.Destination; {
	case c.Protocol != ruleset.UDP:
	case to.Is4() && c.Port == dhcpServer && (c.Local || to == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
		return dhcpClient
	case to.Is6() && c.Port == dhcpv6Server && (c.Local || to.IsMulticast() || to.IsLinkLocalUnicast()):
		return dhcpv6Client
	}
	return 0
}

// alwaysReason says why a connection passes whatever the policies say.
func alwaysReason(why namewardv1.ExplainConnectionResponse_AlwaysAllowed, c ruleset.Connection) string {
	to := netip.AddrPortFrom(c.Destination, c.Port)
	switch why {
	case namewardv1.ExplainConnectionResponse_NODE_ADDRESS:
		return fmt.Sprintf("%s is an address of the node: packets to it are no egress, and no policy judges them", c.Destination)
	case namewardv1.ExplainConnectionResponse_TRUSTED_RESOLVER:
		return fmt.Sprintf("%s is a trusted resolver of the node: DNS to it is always allowed", to)
	case namewardv1.ExplainConnectionResponse_POLICY_SERVER:
		return fmt.Sprintf("%s is a policy server of the node, which the node itself may always reach", to)
	case namewardv1.ExplainConnectionResponse_DHCP:
		return "what a DHCP client asks is always allowed"
	default:
		return ""
	}
}

// questionNote says that a resolver is always reached, and may yet not be asked for every name.
func (a *answer) questionNote(j *judgement) {
	if j.always != namewardv1.ExplainConnectionResponse_TRUSTED_RESOLVER {
		return
	}
	var refusing []ruleset.Policy
	for _, policy := range j.selecting(a.facts.Rules, ruleset.Enforce) {
		if slices.ContainsFunc(policy.Rules, func(r ruleset.Rule) bool { return r.RefusesQueries }) {
			refusing = append(refusing, policy)
		}
	}
	if len(refusing) > 0 {
		a.note("questions for names that %s refuse are rejected all the same: ask about the name", list(refusing, policyName))
	}
}

// alwaysNotes says what may pass all the same, of a connection that is denied.
func (a *answer) alwaysNotes() {
	c := a.question.Connection
	if a.facts.Always == nil {
		a.note("what the node always allows is not considered: which its trusted resolvers, policy servers and addresses are is not known")
	}
	if from := dhcpClientOf(c); from != 0 && a.question.SourcePort == 0 {
		a.note("a DHCP client, which asks from port %d, passes whatever the policies say", from)
	}
	if c.Protocol == ruleset.ICMP && (c.Destination.Is6() || !c.Destination.IsValid() && !c.Source.Is4()) {
		a.note("of ICMPv6, neighbour discovery and multicast listener discovery on the link pass whatever the policies say")
	}
}
