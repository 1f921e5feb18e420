package conntrack

import (
	"net/netip"
	"slices"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/observe"
)

// fate is what becomes of a connection at a change of the rules.
type fate uint8

// In order: of several, the last is what happens.
const (
	allowed   fate = iota // by the new rules
	untouched             // denied, but not by this change
	kept                  // no longer allowed, kept by the policy that allowed it
	cut
)

// change is the rule sets between which connections are judged.
type change struct {
	before       []*ruleset.Judge // those that were in force, the newest last
	after        *ruleset.Judge
	byInterface  bool               // some workload names an interface
	processes    []ruleset.Workload // that name a user, control group or unit
	same         map[samePair]bool
	sameWorkload map[*ruleset.Selection]map[*ruleset.Selection]bool
	known        map[question]fate
}

type samePair struct{ before, after *ruleset.Policy }

// question is all that a verdict depends on, names aside, which are the destination's.
type question struct {
	source      origin
	destination netip.AddrPort
	protocol    ruleset.Protocol
}

// origin is what of a connection says who opened it.
type origin struct {
	local  bool
	source netip.Addr
	iface  string
	hasUID bool
	uid    uint32
	cgroup string
	unit   string
}

func newChange(before []*ruleset.RuleSet, after *ruleset.RuleSet) *change {
	c := &change{
		after: ruleset.NewJudge(after), same: map[samePair]bool{},
		sameWorkload: map[*ruleset.Selection]map[*ruleset.Selection]bool{}, known: map[question]fate{},
	}
	for _, rules := range before {
		if rules.Narrows(after) {
			c.before = append(c.before, ruleset.NewJudge(rules))
		}
	}
	for _, rules := range append(slices.Clone(before), after) {
		for _, policy := range rules.Policies {
			for _, w := range policy.Workloads {
				if w.SelectsProcesses() && !w.Host {
					c.processes = append(c.processes, w)
				}
				c.byInterface = c.byInterface || w.Interface != ""
			}
		}
	}
	return c
}

// concerns reports whether the rules for a connection's workload are not the same before and after.
func (c *change) concerns(connection ruleset.Connection) bool {
	after := c.after.Select(connection)
	if len(after.Policies) == 0 {
		return false
	}
	return slices.ContainsFunc(c.before, func(j *ruleset.Judge) bool { return !c.sameRules(j, j.Select(connection), after) })
}

func (c *change) sameRules(j *ruleset.Judge, before, after *ruleset.Selection) bool {
	if same, known := c.sameWorkload[before][after]; known {
		return same
	}
	same := slices.EqualFunc(before.Policies, after.Policies, func(p, q *ruleset.Policy) bool { return c.samePolicy(j, p, q) })
	if c.sameWorkload[before] == nil {
		c.sameWorkload[before] = map[*ruleset.Selection]bool{}
	}
	c.sameWorkload[before][after] = same
	return same
}

func (c *change) samePolicy(j *ruleset.Judge, p, q *ruleset.Policy) bool {
	pair := samePair{p, q}
	same, known := c.same[pair]
	if !known {
		same = j.Rules().SameRules(p, c.after.Rules(), q)
		c.same[pair] = same
	}
	return same
}

// judge says what becomes of a connection whose destination had these names.
func (c *change) judge(connection ruleset.Connection, names observe.Names) fate {
	q := question{
		originOf(connection),
		netip.AddrPortFrom(connection.Destination, connection.Port), connection.Protocol,
	}
	if found, known := c.known[q]; known {
		return found
	}
	connection.Names = names.Names
	found := c.decide(connection, names.Whole)
	c.known[q] = found
	return found
}

func originOf(c ruleset.Connection) origin {
	o := origin{local: c.Local, source: c.Source, iface: c.Interface, cgroup: c.Cgroup, unit: c.Unit}
	if c.UID != nil {
		o.hasUID, o.uid = true, *c.UID
	}
	return o
}

func (c *change) decide(connection ruleset.Connection, whole bool) fate {
	after := c.after.Select(connection)
	if action, _ := c.after.Verdict(after, connection); action == ruleset.Allow {
		return allowed
	}
	for _, j := range slices.Backward(c.before) {
		before := j.Select(connection)
		action, policy := j.Verdict(before, connection)
		if action == ruleset.Allow {
			return cutUnlessKept([]*ruleset.Policy{policy})
		}
		if whole || c.sameRules(j, before, after) {
			continue
		}
		// It was opened under a name that is forgotten: any rule by name may have allowed it.
		if policies := j.MayAllow(before, connection); len(policies) > 0 {
			return cutUnlessKept(policies)
		}
	}
	return untouched
}

// cutUnlessKept keeps a connection only if every policy that may have allowed it says so.
func cutUnlessKept(policies []*ruleset.Policy) fate {
	if slices.ContainsFunc(policies, func(p *ruleset.Policy) bool { return p == nil || p.Established == ruleset.Cut }) {
		return cut
	}
	return kept
}
