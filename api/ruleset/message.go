package ruleset

import (
	"fmt"
	"net/netip"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// FromProto checks a rule set that came over the wire.
func FromProto(message *agentv1.RuleSet) (*RuleSet, error) {
	changes := make([]*agentv1.RuleSetChange, 0, len(message.GetPolicies())+len(message.GetDomainSets()))
	for _, set := range message.GetDomainSets() {
		changes = append(changes, addDomains(set))
	}
	for _, policy := range message.GetPolicies() {
		changes = append(changes, putPolicy(policy))
	}
	return (&RuleSet{}).With(changes)
}

// ToProto returns the rule set as a message.
func (rs *RuleSet) ToProto() *agentv1.RuleSet {
	message := &agentv1.RuleSet{}
	for _, policy := range rs.Policies {
		message.Policies = append(message.Policies, policy.ToProto())
	}
	for _, set := range rs.DomainSets {
		message.DomainSets = append(message.DomainSets, &agentv1.RuleSetDomainSet{Name: set.Name, Domains: texts(set.Domains)})
	}
	return message
}

// ToProto returns the policy as a message, in canonical form.
func (p Policy) ToProto() *agentv1.RuleSetPolicy {
	message := &agentv1.RuleSetPolicy{
		Name: p.Name, Priority: p.Priority, Mode: p.Mode.ToProto(),
		Established: namewardv1.Policy_CUT,
	}
	if p.Established == Keep {
		message.Established = namewardv1.Policy_KEEP
	}
	for _, w := range p.Workloads {
		message.Workloads = append(message.Workloads, &namewardv1.Workload{
			Cidrs: texts(w.CIDRs), Interface: w.Interface, Host: w.Host, Uid: w.UID, Cgroup: w.Cgroup, SystemdUnit: w.Unit,
		})
	}
	for _, r := range p.Rules {
		message.Rules = append(message.Rules, r.toProto())
	}
	return message
}

// ToProto returns the mode as the message has it.
func (m Mode) ToProto() namewardv1.Policy_Mode {
	return [...]namewardv1.Policy_Mode{namewardv1.Policy_ENFORCE, namewardv1.Policy_AUDIT, namewardv1.Policy_DISABLED}[m]
}

// ToProto returns the action as the message has it.
func (a Action) ToProto() namewardv1.Rule_Action {
	return [...]namewardv1.Rule_Action{namewardv1.Rule_ALLOW, namewardv1.Rule_DENY}[a]
}

func (r Rule) toProto() *namewardv1.Rule {
	message := &namewardv1.Rule{Action: r.Action.ToProto(), Domains: texts(r.Domains), DomainSets: r.DomainSets, Cidrs: texts(r.CIDRs)}
	for _, p := range r.Ports {
		port := &namewardv1.Port{Protocol: p.Protocol.ToProto()}
		if p.First != 0 || p.Last != 65535 {
			port.Port, port.EndPort = uint32(p.First), uint32(p.Last)
		}
		message.Ports = append(message.Ports, port)
	}
	if r.RefusesQueries {
		message.QueryAction = namewardv1.Rule_REFUSE
	}
	return message
}

// ToProto returns the protocol as messages have it; unset for one that rules may not name.
func (p Protocol) ToProto() namewardv1.Protocol {
	switch p {
	case ICMP:
		return namewardv1.Protocol_ICMP
	case TCP:
		return namewardv1.Protocol_TCP
	case UDP:
		return namewardv1.Protocol_UDP
	case SCTP:
		return namewardv1.Protocol_SCTP
	default:
		return namewardv1.Protocol_PROTOCOL_UNSPECIFIED
	}
}

// ParseProtocol reads a protocol; unset means TCP.
func ParseProtocol(message namewardv1.Protocol) (Protocol, error) {
	if message == namewardv1.Protocol_PROTOCOL_UNSPECIFIED {
		return TCP, nil
	}
	protocol, ok := parseProtocol(message)
	if !ok {
		return 0, &FieldError{"protocol", message.String(), "is no protocol"}
	}
	return protocol, nil
}

func texts[E fmt.Stringer](list []E) []string {
	var out []string
	for _, e := range list {
		if prefix, ok := any(e).(netip.Prefix); ok && prefix.IsSingleIP() {
			out = append(out, prefix.Addr().String())
			continue
		}
		out = append(out, e.String())
	}
	return out
}
