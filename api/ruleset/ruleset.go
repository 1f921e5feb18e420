// Package ruleset holds rules in checked form: what the compiler makes of the policies for one node,
// and what the node enforces. It parses what the messages carry, identifies a rule set by its content,
// computes and applies the changes between two, and evaluates a connection by the rules: the reference
// that the datapath is held to.
package ruleset

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/domain"
)

// RuleSet is the compiled form of all policies that apply to one node. It is immutable.
type RuleSet struct {
	// Policies in order of evaluation: by priority, then by name. None is disabled.
	Policies []Policy
	// DomainSets has each that a rule names, sorted by name.
	DomainSets []DomainSet
}

// Policy is a named, ordered list of rules for the workloads it selects. It is immutable.
type Policy struct {
	// Name is the resource name, `policies/{policy}`.
	Name        string
	Priority    int32
	Mode        Mode
	Established Established
	// Workloads is never empty.
	Workloads []Workload
	Rules     []Rule
}

// Mode says what a policy does with a connection that no rule allows.
type Mode uint8

// The modes.
const (
	Enforce Mode = iota
	Audit
	Disabled
)

// Established says what becomes of established connections that a change no longer allows.
type Established uint8

// What becomes of them.
const (
	Cut Established = iota
	Keep
)

// Workload selects connections by where they come from: forwarded ones by source address, interface or
// both, or those of the node's own processes, all of them or by what all of UID, Cgroup and Unit say.
type Workload struct {
	// CIDRs are masked, sorted and without duplicates. Empty selects every source.
	CIDRs []netip.Prefix
	// Interface is a name; a final `+` stands for any ending. Empty selects every interface.
	Interface string
	// Host selects all of the node's own processes. It is not set beside UID, Cgroup or Unit.
	Host bool
	// UID is a user; nil selects every user.
	UID *uint32
	// Cgroup is the path of a control group, which stands for those below too. Empty selects every one.
	Cgroup string
	// Unit is the name of a systemd unit, for its control group and those below. Empty selects every one.
	Unit string
}

// Rule is an action for the connections that it matches.
type Rule struct {
	Action Action
	// Domains, DomainSets and CIDRs are the destinations, sorted and without duplicates. With none of
	// them, every destination matches.
	Domains []domain.Pattern
	// DomainSets are names. A set without domains matches nothing.
	DomainSets []string
	CIDRs      []netip.Prefix
	// Ports is empty for every protocol and port.
	Ports []Ports
	// RefusesQueries: a question for a name that the rule matches is refused on the node.
	RefusesQueries bool
}

// Action is what a rule does with a connection.
type Action uint8

// The actions.
const (
	Allow Action = iota
	Deny
)

// Ports is a range of ports of one protocol.
type Ports struct {
	Protocol Protocol
	// First and Last are inclusive; 0 and 65535 for every port, and for protocols without ports.
	First, Last uint16
}

// Protocol is an IP protocol number. ICMPv6 counts as ICMP.
type Protocol uint8

// The protocols that rules may name.
const (
	ICMP Protocol = 1
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// HasPorts reports whether connections of the protocol have a destination port.
func (p Protocol) HasPorts() bool { return p != ICMP }

// SelectsInterface reports whether the workload's interface pattern matches an interface's name.
func (w Workload) SelectsInterface(name string) bool {
	if prefix, any := cutPlus(w.Interface); any {
		return len(name) >= len(prefix) && name[:len(prefix)] == prefix
	}
	return w.Interface == "" || w.Interface == name
}

// AnyDestination reports whether the rule matches every destination.
func (r Rule) AnyDestination() bool {
	return len(r.Domains) == 0 && len(r.DomainSets) == 0 && len(r.CIDRs) == 0
}

// ByName reports whether the rule names domains or domain sets.
func (r Rule) ByName() bool { return len(r.Domains) > 0 || len(r.DomainSets) > 0 }

// DomainSet returns the set of a name.
func (rs *RuleSet) DomainSet(name string) (DomainSet, bool) {
	i, found := slices.BinarySearchFunc(rs.DomainSets, name, func(s DomainSet, name string) int { return cmp.Compare(s.Name, name) })
	if !found {
		return DomainSet{}, false
	}
	return rs.DomainSets[i], true
}

func cutPlus(s string) (string, bool) {
	if s == "" || s[len(s)-1] != '+' {
		return s, false
	}
	return s[:len(s)-1], true
}
