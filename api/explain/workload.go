package explain

import (
	"fmt"
	"strings"

	"github.com/nameward/nameward/api/ruleset"
)

// selectedText says by which of its workloads a policy selects a connection.
func selectedText(policy ruleset.Policy, c ruleset.Connection) string {
	for i, w := range policy.Workloads {
		if !w.Selects(c) {
			continue
		}
		var why []string
		if w.Host {
			why = append(why, "the node's own processes")
		}
		for _, prefix := range w.CIDRs {
			if prefix.Contains(c.Source) {
				why = append(why, fmt.Sprintf("%s contains %s", prefixText(prefix), c.Source))
				break
			}
		}
		if w.Interface != "" {
			why = append(why, "interface "+w.Interface)
		}
		return fmt.Sprintf("selects the workload by workloads[%d]: %s", i, strings.Join(why, ", "))
	}
	return ""
}

// passedOverText says why none of a policy's workloads selects a connection, field by field.
func passedOverText(policy ruleset.Policy, c ruleset.Connection) string {
	type place struct {
		index    int
		workload ruleset.Workload
	}
	places := make([]place, len(policy.Workloads))
	for i, w := range policy.Workloads {
		places[i] = place{i, w}
	}
	return "does not select the workload: " + list(places, func(p place) string {
		return fmt.Sprintf("workloads[%d]%s", p.index, notSelected(p.workload, c))
	})
}

// notSelected names the field that keeps a workload from selecting a connection, and what it holds.
func notSelected(w ruleset.Workload, c ruleset.Connection) string {
	switch {
	case w.Host:
		return ".host is the node's own processes, and the connection is forwarded"
	case c.Local:
		return " is forwarded traffic, and the connection is of the node itself"
	case w.Interface != "" && !w.SelectsInterface(c.Interface) && c.Interface == "":
		return fmt.Sprintf(".interface is %s, and the question names no interface", w.Interface)
	case w.Interface != "" && !w.SelectsInterface(c.Interface):
		return fmt.Sprintf(".interface is %s, not %s", w.Interface, c.Interface)
	default:
		return fmt.Sprintf(".cidrs (%s) do not contain %s", list(w.CIDRs, prefixText), c.Source)
	}
}

// interfaceNote says that an answer would be another one for some interface.
func (a *answer) interfaceNote() {
	c := a.question.Connection
	if c.Local || c.Interface != "" {
		return
	}
	var policies []string
	for _, policy := range a.facts.Rules.Policies {
		for _, w := range policy.Workloads {
			any := w
			any.Interface = ""
			if w.Interface != "" && !w.Selects(c) && any.Selects(c) && !policy.Selects(c) {
				policies = append(policies, policy.Name)
				break
			}
		}
	}
	if len(policies) > 0 {
		a.note("the question names no incoming interface, by which %s may select the workload", list(policies, func(s string) string { return s }))
	}
}
