package lower

import (
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
	for source := range sources.members {
		bySource := w.forwarded(func(w ruleset.Workload) bool {
			return len(w.CIDRs) == 0 || sources.has(Class(source), w.CIDRs) //nolint:gosec // a class
		})
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

func (w *workloads) forwarded(selects func(ruleset.Workload) bool) []candidate {
	var candidates []candidate
	for i, policy := range w.rules.Policies {
		for _, workload := range policy.Workloads {
			if !workload.SelectsProcesses() && selects(workload) {
				candidates = append(candidates, candidate{uint32(i), workload.Interface}) //nolint:gosec // a place in the rule set
			}
		}
	}
	return candidates
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
