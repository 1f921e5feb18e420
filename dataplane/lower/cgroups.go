package lower

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

// MaxCgroups is how many control groups and units may be named, those on the way to them included.
const MaxCgroups = 65536

// unitParent is in place of the group above a unit, which may be any.
const unitParent = 0

// CgroupKey names a control group by its parent's node and its name. The root's name is empty.
type CgroupKey struct {
	Parent uint32 // 0: the name is that of a unit, wherever it is, or of the root
	Name   string
}

// CgroupNode is what a control group stands for.
type CgroupNode struct {
	Node  uint32 // the parent of groups below that are named; 0: none is
	Class Class  // of what is in it or below; 0: no workload is selected by it alone
	Part  uint32 // of workloads that are selected by path and unit at once; 0: of none
}

// CgroupPair is the parts of a path and of a unit.
type CgroupPair struct{ Path, Unit uint32 }

// Cgroups tells control groups apart by the names on their paths, which is all that is known of those
// that do not exist yet.
type Cgroups struct {
	Nodes map[CgroupKey]CgroupNode
	Pairs map[CgroupPair]Class

	classes map[place]Class
	nodes   uint32 // that were given out
}

// place is where a workload's processes are: what it says of control group and unit.
type place struct{ cgroup, unit string }

func placeOf(w ruleset.Workload) place { return place{w.Cgroup, w.Unit} }

func newCgroups() Cgroups {
	return Cgroups{Nodes: map[CgroupKey]CgroupNode{}, Pairs: map[CgroupPair]Class{}, classes: map[place]Class{}}
}

// layOutCgroups gives every place that some workload names its class.
func layOutCgroups(rules *ruleset.RuleSet) (Cgroups, error) {
	c := newCgroups()
	for _, policy := range rules.Policies {
		for _, w := range policy.Workloads {
			if p := placeOf(w); p != (place{}) {
				c.classes[p] = 0
			}
		}
	}
	parts := map[place]uint32{}
	for i, p := range slices.SortedFunc(maps.Keys(c.classes), comparePlaces) {
		class := Class(i + 1) //nolint:gosec // bounded by the workloads
		c.classes[p] = class
		path, unit := place{cgroup: p.cgroup}, place{unit: p.unit}
		if p == path || p == unit {
			c.edit(p, func(n *CgroupNode) { n.Class = class })
		} else {
			for _, half := range []place{path, unit} {
				if parts[half] == 0 {
					parts[half] = uint32(len(parts) + 1) //nolint:gosec // bounded by the workloads
					c.edit(half, func(n *CgroupNode) { n.Part = parts[half] })
				}
			}
			c.Pairs[CgroupPair{parts[path], parts[unit]}] = class
		}
		if len(c.Nodes) > MaxCgroups {
			return c, fmt.Errorf("name control groups up to %q: more than %d: %w", p.cgroup+p.unit, MaxCgroups, enforce.ErrFull)
		}
	}
	return c, nil
}

func comparePlaces(a, b place) int {
	return cmp.Or(strings.Compare(a.cgroup, b.cgroup), strings.Compare(a.unit, b.unit))
}

// edit changes the nodes of a path or of a unit, which may have several names.
func (c *Cgroups) edit(p place, change func(*CgroupNode)) {
	keys := []CgroupKey{}
	if p.unit == "" {
		keys = append(keys, c.key(p.cgroup))
	} else {
		for _, name := range ruleset.CgroupNames(p.unit) {
			keys = append(keys, CgroupKey{unitParent, name})
		}
	}
	for _, key := range keys {
		node := c.Nodes[key]
		change(&node)
		c.Nodes[key] = node
	}
}

// key makes the nodes on the way to a path.
func (c *Cgroups) key(path string) CgroupKey {
	key := CgroupKey{unitParent, ""}
	for _, name := range ruleset.CgroupLevels(path) {
		node := c.Nodes[key]
		if node.Node == 0 {
			c.nodes++
			node.Node = c.nodes
			c.Nodes[key] = node
		}
		key = CgroupKey{node.Node, name}
	}
	return key
}
