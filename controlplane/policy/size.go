package policy

import "github.com/nameward/nameward/api/ruleset"

// Size counts what policies and domain sets hold, duplicates included.
type Size struct {
	// Patterns is the room (ruleset.Room) of domain patterns, General how many of them are general.
	Patterns, General int
	// Destinations and Sources count CIDRs.
	Destinations, Sources int
}

// Plus returns the size of both together.
func (s Size) Plus(other Size) Size {
	return Size{s.Patterns + other.Patterns, s.General + other.General, s.Destinations + other.Destinations, s.Sources + other.Sources}
}

// Minus returns the size without a part of it.
func (s Size) Minus(part Size) Size {
	return Size{s.Patterns - part.Patterns, s.General - part.General, s.Destinations - part.Destinations, s.Sources - part.Sources}
}

// sizeOf is nothing for a policy that no node gets.
func sizeOf(p ruleset.Policy) (sum Size) {
	if p.Mode == ruleset.Disabled {
		return Size{}
	}
	for _, rule := range p.Rules {
		for _, pattern := range rule.Domains {
			sum.Patterns += ruleset.Room(pattern)
			if pattern.General() {
				sum.General++
			}
		}
		sum.Destinations += len(rule.CIDRs)
	}
	for _, workload := range p.Workloads {
		sum.Sources += len(workload.CIDRs)
	}
	return sum
}

// Size returns the room that the set takes in a rule set.
func (s *DomainSet) Size() Size { return Size{Patterns: s.Room(), General: len(s.General())} }
