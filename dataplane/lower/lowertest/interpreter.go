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
	w, selected := workload(t, c)
	if !t.Flags.Enforces || !selected {
		return Verdict{}
	}
	components := []lower.VerdictKey{{Workload: w.ID, Kind: lower.AnyDestination}}
	if t.Flags.Destinations && c.Destination.IsValid() {
		class := longest(t.Destinations, c.Destination)
		components = append(components, lower.VerdictKey{Workload: w.ID, Kind: lower.CIDRDestination, ID: uint32(class)})
	}
	for _, name := range c.Names {
		for _, set := range s.Match(name) {
			components = append(components, lower.VerdictKey{Workload: w.ID, Kind: lower.DomainDestination, ID: uint32(set)})
		}
	}
	v := Verdict{Enforced: w.Enforced, Audited: w.Audited}
	if w.Enforced {
		v.Action = action(first(t, components, c, false))
	}
	if w.Audited {
		v.AuditVerdict = action(first(t, components, c, true))
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
	w, selected := workload(t, c)
	if !t.Flags.Refuses || !selected {
		return Refusal{}
	}
	components := []lower.VerdictKey{{Workload: w.ID, Kind: lower.AnyQuestion}}
	for _, set := range s.Match(name) {
		components = append(components, lower.VerdictKey{Workload: w.ID, Kind: lower.DomainQuestion, ID: uint32(set)})
	}
	refuses := func(e *lower.Entry) bool { return e != nil && e.Deny }
	return Refusal{
		Refused:      w.Enforced && refuses(first(t, components, c, false)),
		AuditRefused: w.Audited && refuses(first(t, components, c, true)),
	}
}

func workload(t *lower.Tables, c ruleset.Connection) (lower.Workload, bool) {
	key := lower.WorkloadKey{Local: c.Local}
	if !c.Local && t.Flags.Sources {
		key.Source = longest(t.Sources, c.Source)
	}
	if !c.Local && t.Flags.Interfaces {
		key.Interface = t.Interfaces.Class(c.Interface)
	}
	w, selected := t.Workloads[key]
	return w, selected
}

// first takes of each component the first entry that fits, and of those the one with the lowest position.
func first(t *lower.Tables, components []lower.VerdictKey, c ruleset.Connection, audit bool) *lower.Entry {
	var best *lower.Entry
	for _, key := range components {
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
