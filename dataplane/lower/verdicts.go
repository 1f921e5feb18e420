package lower

import (
	"fmt"
	"maps"
	"slices"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

// MaxEntries is how many rules may apply to one workload and one component of a destination, behind
// one another and none covered by another.
const MaxEntries = 80

// MaxRules is how many rules a node's policies may have in all.
const MaxRules = 1 << 22

// MaxVerdicts bounds what is laid out before anybody counts what the kernel's map has room for.
const MaxVerdicts = 1 << 20

// position is a rule and its place among all rules.
type position struct {
	policy uint32
	number uint32
	rule   *ruleset.Rule
}

// judge fills in the verdicts: for each workload and component, the rules that can match.
func (s *State) judge(rules *ruleset.RuleSet, selections []selection, destinations *prefixClasses, t *Tables) error {
	j := &judgement{rules: rules, tables: t, selectors: map[uint32][]position{}, cidrs: map[uint32][]position{}}
	if err := j.place(s, destinations); err != nil {
		return err
	}
	j.spread(selections)
	if err := j.put(AnyDestination, 0, j.any); err != nil {
		return err
	}
	if err := j.put(AnyQuestion, 0, j.any); err != nil {
		return err
	}
	for class := 1; class < len(destinations.members); class++ {
		var at []position
		for _, list := range destinations.members[class] {
			at = append(at, j.cidrs[list]...)
		}
		if err := j.put(CIDRDestination, uint32(class), at); err != nil { //nolint:gosec // a class
			return err
		}
	}
	for _, set := range slices.Sorted(maps.Keys(s.groups.bySet)) {
		var at []position
		for _, selector := range s.sets.members[set] {
			at = append(at, j.selectors[selector]...)
		}
		if err := j.put(DomainDestination, uint32(set), at); err != nil {
			return err
		}
		if err := j.put(DomainQuestion, uint32(set), at); err != nil {
			return err
		}
	}
	return nil
}

type judgement struct {
	rules     *ruleset.RuleSet
	tables    *Tables
	any       []position
	selectors map[uint32][]position // by selector
	cidrs     map[uint32][]position // by list of prefixes
	workloads [][]uint32            // of each policy, the ids of the workloads that it selects
	refusing  map[uint32]bool       // workloads whose questions a rule may refuse
}

// place numbers the rules of all policies and files them by what they go by.
func (j *judgement) place(s *State, destinations *prefixClasses) error {
	number := uint32(0)
	for i, policy := range j.rules.Policies {
		for r := range policy.Rules {
			if number == MaxRules {
				return fmt.Errorf("lay out policy %s: more than %d rules in all: %w", policy.Name, MaxRules, enforce.ErrFull)
			}
			rule := &policy.Rules[r]
			at := position{uint32(i), number, rule} //nolint:gosec // a place in the rule set
			number++
			if rule.AnyDestination() {
				j.any = append(j.any, at)
			}
			if len(rule.Domains) > 0 {
				j.file(s, selectorKey{policy.Name, r}, at)
			}
			for _, set := range rule.DomainSets {
				j.file(s, selectorKey{set, ofDomainSet}, at)
			}
			if len(rule.CIDRs) > 0 {
				list := destinations.lists.number[listKey(rule.CIDRs)]
				j.cidrs[list] = append(j.cidrs[list], at)
			}
		}
	}
	return nil
}

// file adds a rule to those of a selector.
func (j *judgement) file(s *State, key selectorKey, at position) {
	if selector := s.selectors[key]; selector != nil {
		j.selectors[selector.id] = append(j.selectors[selector.id], at)
	}
}

func (j *judgement) spread(selections []selection) {
	j.workloads = make([][]uint32, len(j.rules.Policies))
	j.refusing = map[uint32]bool{}
	for id, policies := range selections {
		for _, p := range policies {
			j.workloads[p] = append(j.workloads[p], uint32(id)) //nolint:gosec // a workload
			if slices.ContainsFunc(j.rules.Policies[p].Rules, func(r ruleset.Rule) bool { return r.RefusesQueries }) {
				j.refusing[uint32(id)] = true //nolint:gosec // a workload
			}
		}
	}
	j.tables.Flags.Refuses = len(j.refusing) > 0
	j.refuseTogether()
}

// refuseTogether adds the workloads of processes when one of them is refused something: a process may be of
// several, and a rule of one that lets it ask comes before one of another that does not.
func (j *judgement) refuseTogether() {
	local := map[uint32]bool{}
	refused := false
	for key, workload := range j.tables.Workloads {
		if key.Local {
			local[workload.ID] = true
			refused = refused || j.refusing[workload.ID]
		}
	}
	if refused {
		maps.Copy(j.refusing, local)
	}
}

// put files the rules of one component under every workload that one of their policies selects; as far
// as questions go, only under those where one may be refused.
func (j *judgement) put(kind Kind, id uint32, at []position) error {
	slices.SortFunc(at, func(a, b position) int { return int(a.number) - int(b.number) })
	for _, p := range at {
		for _, workload := range j.workloads[p.policy] {
			if kind.ofQuestions() && !j.refusing[workload] {
				continue
			}
			key := VerdictKey{workload, kind, id}
			entries, ok := j.add(j.tables.Verdicts[key], p, kind)
			if !ok {
				return fmt.Errorf("lay out policy %s: more than %d rules apply to one destination of one workload: %w",
					j.rules.Policies[p.policy].Name, MaxEntries, enforce.ErrFull)
			}
			j.tables.Verdicts[key] = entries
		}
		if len(j.tables.Verdicts) > MaxVerdicts {
			return fmt.Errorf("lay out policy %s: more than %d pairs of workload and destination: %w",
				j.rules.Policies[p.policy].Name, MaxVerdicts, enforce.ErrFull)
		}
	}
	return nil
}

func (k Kind) ofQuestions() bool { return k == AnyQuestion || k == DomainQuestion }

func (j *judgement) add(entries []Entry, p position, kind Kind) ([]Entry, bool) {
	entry := Entry{
		Position: p.number,
		Last:     65535,
		Deny:     p.rule.Action == ruleset.Deny,
		Audit:    j.rules.Policies[p.policy].Mode == ruleset.Audit,
	}
	if kind.ofQuestions() {
		entry.Deny = p.rule.RefusesQueries
		return appendUncovered(entries, entry)
	}
	if len(p.rule.Ports) == 0 {
		return appendUncovered(entries, entry)
	}
	for _, ports := range p.rule.Ports {
		entry.Protocol, entry.First, entry.Last = uint8(ports.Protocol), ports.First, ports.Last
		if !ports.Protocol.HasPorts() {
			entry.First, entry.Last = 0, 65535
		}
		var fits bool
		if entries, fits = appendUncovered(entries, entry); !fits {
			return entries, false
		}
	}
	return entries, true
}

func appendUncovered(entries []Entry, entry Entry) ([]Entry, bool) {
	if slices.ContainsFunc(entries, func(e Entry) bool { return e.covers(entry) }) {
		return entries, true
	}
	return append(entries, entry), len(entries) < MaxEntries
}

// covers reports whether every connection that later matches is decided by e before.
func (e Entry) covers(later Entry) bool {
	if e.Audit != later.Audit {
		return false
	}
	return e.Protocol == 0 || e.Protocol == later.Protocol && e.First <= later.First && later.Last <= e.Last
}
