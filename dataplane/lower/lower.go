// Package lower turns a rule set into the tables that the kernel judges by: names to match sets,
// addresses and interfaces to classes, classes to workloads, and for each workload and each component
// of a destination the rules that can apply. It is pure: nothing of the kernel is read or written, and
// the same history of rule sets gives the same tables. What a packet costs does not depend on how many
// policies there are, since all that could be decided beforehand is decided here.
package lower

import (
	"github.com/nameward/nameward/api/ruleset"
)

// Class is a set of prefixes or interface patterns that hold together; 0 is that of none.
type Class uint32

// Flags say what a rule set makes no use of, so that it need not be looked up.
type Flags struct {
	Enforces     bool // some policy selects something
	Sources      bool // some workload is selected by source address
	Interfaces   bool // some workload is selected by interface
	Destinations bool // some rule has a CIDR destination
	Refuses      bool // some rule refuses questions
	Users        bool // some workload is selected by user
	Cgroups      bool // some workload is selected by control group or unit
	// CgroupsEnforced: by a policy in mode ENFORCE.
	CgroupsEnforced bool
}

// WorkloadKey is all that is known of who opens a connection. A process of the node may be in control
// groups of several classes, and has a key for each and one without.
type WorkloadKey struct {
	Local     bool  // a process of the node
	Source    Class // of the address; of a process: the user's id + 1, or 0
	Interface Class // or of a control group
}

// Workload is a set of policies that select the same connections.
type Workload struct {
	ID       uint32
	Enforced bool
	Audited  bool
}

// Kind is what about a destination a rule goes by.
type Kind uint8

// The kinds.
const (
	AnyDestination    Kind = iota // rules without a destination
	CIDRDestination               // ID is a class
	DomainDestination             // ID is a match set
	// Of questions: the same, ports aside. An entry that denies refuses the question.
	AnyQuestion
	DomainQuestion
)

// VerdictKey names the rules of a workload that one component of a destination can match.
type VerdictKey struct {
	Workload uint32
	Kind     Kind
	ID       uint32
}

// Entry is a rule, or one range of its ports.
type Entry struct {
	Position uint32 // among all rules of the rule set, in order of evaluation
	First    uint16
	Last     uint16
	Protocol uint8 // 0: any, and ports do not count
	Deny     bool
	Audit    bool
}

// Tables are a rule set as the kernel holds it, but for the names, which State keeps.
type Tables struct {
	Flags        Flags
	Sources      []PrefixClass
	Destinations []PrefixClass
	Interfaces   Interfaces
	Cgroups      Cgroups
	Patterns     GeneralPatterns
	Common       CommonSets
	Workloads    map[WorkloadKey]Workload
	// Verdicts are in order of position, without what an earlier entry of the same mode covers.
	Verdicts map[VerdictKey][]Entry
	// Changed lists the names that refer to other match sets than before this rule set, for themselves or
	// the names below. "." stands for every name, that of odd bytes included. Names that refer to a common
	// set have another one too when Common has another at its place.
	Changed []string
}

// Lower makes the tables of a rule set, and brings the names of the state to what it says. The error
// wraps enforce.ErrFull and names the policy or pattern that does not fit; the names have moved on all the same,
// and Changed is whole.
func (s *State) Lower(rules *ruleset.RuleSet) (*Tables, error) {
	t := &Tables{
		Changed:   s.update(rules),
		Workloads: map[WorkloadKey]Workload{},
		Verdicts:  map[VerdictKey][]Entry{},
	}
	t.Common = s.Common()
	var err error
	if t.Patterns, err = s.layOutGeneral(); err != nil {
		return t, err
	}
	sources, interfaces := newLists(), newPatterns()
	for _, policy := range rules.Policies {
		for _, w := range policy.Workloads {
			sources.add(w.CIDRs)
			interfaces.add(w.Interface)
		}
	}
	destinations := newLists()
	for _, policy := range rules.Policies {
		for _, r := range policy.Rules {
			destinations.add(r.CIDRs)
		}
	}
	sourceClasses := sources.classes()
	destinationClasses := destinations.classes()
	t.Sources, t.Destinations = sourceClasses.prefixes, destinationClasses.prefixes
	t.Interfaces = interfaces.classes()
	t.Flags.Sources = len(t.Sources) > 0
	t.Flags.Interfaces = t.Interfaces.Len() > 0
	t.Flags.Destinations = len(t.Destinations) > 0
	if t.Cgroups, err = layOutCgroups(rules); err != nil {
		return t, err
	}
	t.Flags.byProcess(rules)

	selections, err := selectWorkloads(rules, sourceClasses, t)
	if err != nil {
		return t, err
	}
	t.Flags.Enforces = len(selections) > 0
	return t, s.judge(rules, selections, destinationClasses, t)
}

// byProcess says what of the node's own processes some policy goes by.
func (f *Flags) byProcess(rules *ruleset.RuleSet) {
	for _, policy := range rules.Policies {
		for _, w := range policy.Workloads {
			f.Users = f.Users || w.UID != nil
			if placeOf(w) != (place{}) {
				f.Cgroups = true
				f.CgroupsEnforced = f.CgroupsEnforced || policy.Mode == ruleset.Enforce
			}
		}
	}
}
