// Package lowertest judges connections by lowered tables in the way that the BPF programs do, only
// plainly: a reference between the rules and the kernel.
package lowertest

import (
	"net/netip"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/lower"
)

// Verdict is what the tables say of a connection.
type Verdict struct {
	Enforced     bool // some enforcing policy selects it
	Action       ruleset.Action
	Audited      bool
	AuditVerdict ruleset.Action
}

// Judge looks a connection up in the tables.
func Judge(s *lower.State, t *lower.Tables, c ruleset.Connection) Verdict {
	if !t.Flags.Enforces {
		return Verdict{}
	}
	components := []lower.VerdictKey{{Kind: lower.AnyDestination}}
	if t.Flags.Destinations && c.Destination.IsValid() {
		class := longest(t.Destinations, c.Destination)
		components = append(components, lower.VerdictKey{Kind: lower.CIDRDestination, ID: uint32(class)})
	}
	for _, name := range c.Names {
		for _, set := range s.Match(name) {
			components = append(components, lower.VerdictKey{Kind: lower.DomainDestination, ID: uint32(set)})
		}
	}
	var v Verdict
	selected := workloads(t, c)
	for _, w := range selected {
		v.Enforced = v.Enforced || w.Enforced
		v.Audited = v.Audited || w.Audited
	}
	if v.Enforced {
		v.Action = action(first(t, selected, components, c, false))
	}
	if v.Audited {
		v.AuditVerdict = action(first(t, selected, components, c, true))
	}
	return v
}

// Refusal is what the tables say of a question.
type Refusal struct {
	Refused      bool
	AuditRefused bool
}

// JudgeQuestion looks a question for a name up in the tables.
func JudgeQuestion(s *lower.State, t *lower.Tables, c ruleset.Connection, name domain.Name) Refusal {
	if !t.Flags.Refuses {
		return Refusal{}
	}
	components := []lower.VerdictKey{{Kind: lower.AnyQuestion}}
	for _, set := range s.Match(name) {
		components = append(components, lower.VerdictKey{Kind: lower.DomainQuestion, ID: uint32(set)})
	}
	refuses := func(e *lower.Entry) bool { return e != nil && e.Deny }
	var r Refusal
	selected := workloads(t, c)
	for _, w := range selected {
		r.Refused = r.Refused || w.Enforced && refuses(first(t, selected, components, c, false))
		r.AuditRefused = r.AuditRefused || w.Audited && refuses(first(t, selected, components, c, true))
	}
	return r
}

func workloads(t *lower.Tables, c ruleset.Connection) []lower.Workload {
	if c.Local {
		return processWorkloads(t, c)
	}
	var key lower.WorkloadKey
	if t.Flags.Sources {
		key.Source = longest(t.Sources, c.Source)
	}
	if t.Flags.Interfaces {
		key.Interface = t.Interfaces.Class(c.Interface)
	}
	if w, ok := t.Workloads[key]; ok {
		return []lower.Workload{w}
	}
	return nil
}

// first takes of each workload and component the first entry that fits, and of those the one with the lowest position.
func first(t *lower.Tables, workloads []lower.Workload, components []lower.VerdictKey, c ruleset.Connection, audit bool) *lower.Entry {
	var best *lower.Entry
	for _, w := range workloads {
		for _, key := range components {
			key.Workload = w.ID
			for _, e := range t.Verdicts[key] {
				if e.Audit != audit || !fits(e, c) {
					continue
				}
				if best == nil || e.Position < best.Position {
					best = &e
				}
				break
			}
		}
	}
	return best
}

func action(e *lower.Entry) ruleset.Action {
	if e == nil || e.Deny {
		return ruleset.Deny
	}
	return ruleset.Allow
}

func fits(e lower.Entry, c ruleset.Connection) bool {
	return e.Protocol == 0 || e.Protocol == uint8(c.Protocol) && e.First <= c.Port && c.Port <= e.Last
}

// longest is a longest-prefix lookup of an address in IPv4-mapped form.
func longest(table []lower.PrefixClass, a netip.Addr) lower.Class {
	mapped := netip.AddrFrom16(a.As16())
	bits, class := -1, lower.Class(0)
	for _, p := range table {
		prefix, err := mapped.Prefix(p.Prefix.Bits())
		if err == nil && prefix == p.Prefix && p.Prefix.Bits() > bits {
			bits, class = p.Prefix.Bits(), p.Class
		}
	}
	return class
}
