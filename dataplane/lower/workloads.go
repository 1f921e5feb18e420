package lower

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
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
	if err := w.putLocal(); err != nil {
		return nil, err
	}
	forwarded := w.forwarded(sources.lists)
	for source, lists := range sources.members {
		bySource := forwarded.of(lists)
		if len(bySource) == 0 {
			continue
		}
		for class := range t.Interfaces.Len() + 1 {
			key := WorkloadKey{Source: Class(source), Interface: Class(class)} //nolint:gosec // classes
			w.put(key, w.byInterface(bySource, key.Interface))
			if err := w.full(); err != nil {
				return nil, err
			}
		}
	}
	return w.selections, nil
}

func (w *workloads) full() error {
	if len(w.tables.Workloads) <= MaxWorkloads {
		return nil
	}
	last := w.rules.Policies[len(w.rules.Policies)-1].Name
	return fmt.Errorf("select workloads up to policy %s: more than %d combinations of sources and interfaces, or of users and control groups: %w",
		last, MaxWorkloads, enforce.ErrFull)
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

// processes are what a workload says of the node's own processes.
type processes struct {
	place
	user uint32 // id + 1; 0: every user
}

// putLocal puts the keys of all of the node's own processes, of each user, of each place, and of users in
// places where a workload names both. A key with a user selects what the same one without does too: the
// kernel looks up no more than one of the two.
func (w *workloads) putLocal() error {
	selected := map[processes]selection{}
	for i, policy := range w.rules.Policies {
		for _, workload := range policy.Workloads {
			if !workload.SelectsProcesses() {
				continue
			}
			p := processes{place: placeOf(workload)}
			if workload.UID != nil {
				p.user = *workload.UID + 1
			}
			selected[p] = append(selected[p], uint32(i)) //nolint:gosec // a place in the rule set
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(selected), func(a, b processes) int {
		return cmp.Or(comparePlaces(a.place, b.place), cmp.Compare(a.user, b.user))
	}) {
		policies := slices.Concat(selected[p], selected[processes{place: p.place}])
		slices.Sort(policies)
		w.put(WorkloadKey{Local: true, Source: Class(p.user), Interface: w.tables.Cgroups.classes[p.place]}, slices.Compact(policies))
		if err := w.full(); err != nil {
			return err
		}
	}
	return nil
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
