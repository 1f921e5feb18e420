package lower

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

// MaxWorkloads is how many combinations of classes may select something.
const MaxWorkloads = 65536

// selection is a workload's policies, by their place in the rule set; sorted.
type selection []uint32

// selectWorkloads finds, for every combination of classes that can occur, the policies that select it.
// The kernel looks a connection up by all that it is, so a combination has a key of its own even where
// only one of its classes matters. The result holds the selection of each workload id.
func selectWorkloads(rules *ruleset.RuleSet, sources *prefixClasses, t *Tables) ([]selection, error) {
	w := workloads{rules: rules, tables: t, ids: map[string]uint32{}}
	w.put(WorkloadKey{Local: true}, w.selected(func(w ruleset.Workload) bool { return w.Host }))
	forwarded := w.forwarded(sources.lists)
	for source, lists := range sources.members {
		bySource := forwarded.of(lists)
		if len(bySource) == 0 {
			continue
		}
		for class := range t.Interfaces.Len() + 1 {
			key := WorkloadKey{Source: Class(source), Interface: Class(class)} //nolint:gosec // classes
			w.put(key, w.byInterface(bySource, key.Interface))
			if len(t.Workloads) > MaxWorkloads {
				last := rules.Policies[len(rules.Policies)-1].Name
				return nil, fmt.Errorf("select workloads up to policy %s: more than %d combinations of sources and interfaces: %w",
					last, MaxWorkloads, enforce.ErrFull)
			}
		}
	}
	return w.selections, nil
}

type workloads struct {
	rules      *ruleset.RuleSet
	tables     *Tables
	ids        map[string]uint32
	selections []selection
}

// candidate is an entry of a policy's list of workloads.
type candidate struct {
	policy    uint32
	netdevice string
}

func (w *workloads) selected(selects func(ruleset.Workload) bool) selection {
	var policies selection
	for i, policy := range w.rules.Policies {
		if slices.ContainsFunc(policy.Workloads, selects) {
			policies = append(policies, uint32(i)) //nolint:gosec // a place in the rule set
		}
	}
	return policies
}

// candidates are the workloads of forwarded traffic, by the list of prefixes that they name.
type candidates struct {
	everywhere []candidate // those that name none
	byList     [][]candidate
}

func (w *workloads) forwarded(sources *lists) *candidates {
	c := &candidates{byList: make([][]candidate, len(sources.all))}
	for i, policy := range w.rules.Policies {
		for _, workload := range policy.Workloads {
			if workload.SelectsProcesses() {
				continue
			}
			one := candidate{uint32(i), workload.Interface} //nolint:gosec // a place in the rule set
			if len(workload.CIDRs) == 0 {
				c.everywhere = append(c.everywhere, one)
				continue
			}
			list := sources.number[listKey(workload.CIDRs)]
			c.byList[list] = append(c.byList[list], one)
		}
	}
	return c
}

// of returns those of a class, in order of the policies. Thousands of sources must not each cost a look at
// every workload.
func (c *candidates) of(lists []uint32) []candidate {
	all := slices.Clone(c.everywhere)
	for _, list := range lists {
		all = append(all, c.byList[list]...)
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return cmp.Compare(a.policy, b.policy) })
	return all
}

func (w *workloads) byInterface(candidates []candidate, class Class) selection {
	var policies selection
	for _, c := range candidates {
		if c.netdevice == "" || w.tables.Interfaces.has(class, c.netdevice) {
			policies = append(policies, c.policy)
		}
	}
	return slices.Compact(policies)
}

func (w *workloads) put(key WorkloadKey, policies selection) {
	if len(policies) == 0 {
		return
	}
	var name []byte
	for _, p := range policies {
		name = binary.LittleEndian.AppendUint32(name, p)
	}
	id, known := w.ids[string(name)]
	if !known {
		id = uint32(len(w.selections)) //nolint:gosec // below MaxWorkloads
		w.ids[string(name)] = id
		w.selections = append(w.selections, policies)
	}
	workload := Workload{ID: id}
	for _, p := range policies {
		if w.rules.Policies[p].Mode == ruleset.Audit {
			workload.Audited = true
		} else {
			workload.Enforced = true
		}
	}
	w.tables.Workloads[key] = workload
}
