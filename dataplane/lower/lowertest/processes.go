package lowertest

import (
	"strings"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/lower"
)

// processWorkloads looks a process up by its user, and by that of each class of its control groups.
func processWorkloads(t *lower.Tables, c ruleset.Connection) []lower.Workload {
	var user lower.Class
	if t.Flags.Users && c.UID != nil {
		user = lower.Class(*c.UID) + 1
	}
	classes := []lower.Class{0}
	if t.Flags.Cgroups && c.Cgroup != "" {
		classes = append(classes, cgroupClasses(t, c.Cgroup)...)
	}
	var found []lower.Workload
	for _, class := range classes {
		key := lower.WorkloadKey{Local: true, Source: user, Interface: class}
		w, ok := t.Workloads[key]
		if !ok {
			key.Source = 0
			w, ok = t.Workloads[key]
		}
		if ok {
			found = append(found, w)
		}
	}
	return found
}

// cgroupClasses walks down a path.
func cgroupClasses(t *lower.Tables, path string) []lower.Class {
	var classes []lower.Class
	var paths, units []uint32
	take := func(node lower.CgroupNode, parts *[]uint32) {
		if node.Class != 0 {
			classes = append(classes, node.Class)
		}
		if node.Part != 0 {
			*parts = append(*parts, node.Part)
		}
	}
	at := t.Cgroups.Nodes[lower.CgroupKey{}]
	take(at, &paths)
	slices := true
	for _, name := range ruleset.CgroupLevels(path) {
		if at.Node != 0 {
			at = t.Cgroups.Nodes[lower.CgroupKey{Parent: at.Node, Name: name}]
			take(at, &paths)
		}
		if slices {
			take(t.Cgroups.Nodes[lower.CgroupKey{Name: name}], &units)
			slices = strings.HasSuffix(name, ".slice")
		}
	}
	for _, path := range paths {
		for _, unit := range units {
			if class, ok := t.Cgroups.Pairs[lower.CgroupPair{Path: path, Unit: unit}]; ok {
				classes = append(classes, class)
			}
		}
	}
	return classes
}
