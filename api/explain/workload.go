package explain

import (
	"fmt"
	"slices"
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
		switch {
		case w.Host:
			why = append(why, "the node's own processes")
		case w.UID != nil:
			why = append(why, fmt.Sprintf("user %d", *w.UID))
		}
		if w.Cgroup != "" {
			why = append(why, fmt.Sprintf("control group %s", w.Cgroup))
		}
		if w.Unit != "" {
			why = append(why, w.Unit)
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
	var why []string
	for i, w := range policy.Workloads[:min(len(policy.Workloads), listed)] {
		why = append(why, fmt.Sprintf("workloads[%d]%s", i, notSelected(w, c)))
	}
	if more := len(policy.Workloads) - len(why); more > 0 {
		why = append(why, fmt.Sprintf("nor do %d more", more))
	}
	return "does not select the workload: " + strings.Join(why, "; ")
}

// notSelected names the field that keeps a workload from selecting a connection, and what it holds.
func notSelected(w ruleset.Workload, c ruleset.Connection) string {
	switch {
	case w.SelectsProcesses() && !c.Local:
		return " is of the node's own processes, and the connection is forwarded"
	case w.SelectsProcesses():
		return notSelectedProcess(w, c)
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

func notSelectedProcess(w ruleset.Workload, c ruleset.Connection) string {
	cgroup := ruleset.Workload{Cgroup: w.Cgroup}
	switch {
	case w.UID != nil && c.UID == nil:
		return fmt.Sprintf(".uid is %d, and the question names no user", *w.UID)
	case w.UID != nil && *w.UID != *c.UID:
		return fmt.Sprintf(".uid is %d, not %d", *w.UID, *c.UID)
	case w.Cgroup != "" && c.Cgroup == "":
		return fmt.Sprintf(".cgroup is %s, and the question names no control group", w.Cgroup)
	case w.Cgroup != "" && !cgroup.Selects(c):
		return fmt.Sprintf(".cgroup is %s, and %s is not there", w.Cgroup, c.Cgroup)
	case c.Cgroup == "" && c.Unit == "":
		return fmt.Sprintf(".systemd_unit is %s, and the question names neither a unit nor a control group", w.Unit)
	case c.Cgroup == "":
		return fmt.Sprintf(".systemd_unit is %s, not %s", w.Unit, c.Unit)
	default:
		return fmt.Sprintf(".systemd_unit is %s, and %s is not in its control group", w.Unit, c.Cgroup)
	}
}

// unknownNote says that policies select by what the question does not name: the answer would be another
// one for some of that.
func (a *answer) unknownNote() {
	c := a.question.Connection
	var policies []ruleset.Policy
	for _, policy := range a.facts.Rules.Policies {
		if !policy.Selects(c) && slices.ContainsFunc(policy.Workloads, func(w ruleset.Workload) bool { return ignoring(w, c).Selects(c) }) {
			policies = append(policies, policy)
		}
	}
	if len(policies) == 0 {
		return
	}
	unnamed := "incoming interface"
	if c.Local {
		unnamed = "user, control group or unit"
	}
	a.note("the question does not name the %s by which %s may select the workload", unnamed, list(policies, policyName))
}

// ignoring returns the workload without the fields that nothing is known of.
func ignoring(w ruleset.Workload, c ruleset.Connection) ruleset.Workload {
	processes := w.SelectsProcesses()
	if c.Interface == "" {
		w.Interface = ""
	}
	if c.UID == nil {
		w.UID = nil
	}
	if c.Cgroup == "" {
		w.Cgroup = ""
	}
	if c.Cgroup == "" && c.Unit == "" {
		w.Unit = ""
	}
	if processes && !w.SelectsProcesses() {
		w.Host = true
	}
	return w
}
