package ruleset_test

import (
	"math"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

func TestParsePolicyNamesEveryFault(t *testing.T) {
	uid := uint32(math.MaxUint32)
	_, err := ruleset.ParsePolicy(&namewardv1.Policy{
		Mode:        9,
		Established: 9,
		Workloads: []*namewardv1.Workload{
			{Cidrs: []string{"10.0.0.0/8", "10.1.2.3/8", "::ffff:10.0.0.0/104", "ten"}},
			{Interface: "an-interface-too-long"},
			{},
			{Host: true, Interface: "eth0"},
			{Uid: &uid, Cgroup: "a.slice", SystemdUnit: "web"},
			{Uid: &uid, Cgroup: "/a.slice", SystemdUnit: "web.service", Interface: "eth0"},
			{Interface: "eth0\r"},
			{Interface: "eth0\x00+"},
		},
		Rules: []*namewardv1.Rule{
			{Domains: []string{"a..b", "ok.example", "www.*.*.com"}, Action: namewardv1.Rule_ALLOW},
			{Action: 7, DomainSets: []string{"domainSets/X"}, QueryAction: 9},
			{Action: namewardv1.Rule_DENY, Ports: []*namewardv1.Port{
				{Protocol: namewardv1.Protocol_TCP, Port: 443, EndPort: 80},
				{Protocol: namewardv1.Protocol_ICMP, Port: 8},
				{Port: 443},
				{Protocol: namewardv1.Protocol_UDP, EndPort: 9},
				{Protocol: namewardv1.Protocol_ICMP, EndPort: 9},
			}},
		},
	})
	if err == nil {
		t.Fatal("no fault found")
	}
	var got []string
	for line := range strings.SplitSeq(err.Error(), "\n") {
		path, _, _ := strings.Cut(line, ": ")
		got = append(got, path)
	}
	want := []string{
		"mode", "established", "workloads[0].cidrs[1]", "workloads[0].cidrs[2]", "workloads[0].cidrs[3]", "workloads[1].interface",
		"workloads[2]", "workloads[3].host",
		"workloads[4].uid", "workloads[4].cgroup", "workloads[4].systemd_unit",
		"workloads[5].uid", "workloads[5].cgroup", "workloads[5].systemd_unit",
		"workloads[6].interface", "workloads[7].interface", "rules[0].domains[0]", "rules[0].domains[2]", "rules[1].action",
		"rules[1].domain_sets[0]", "rules[1].query_action", "rules[2].ports[0].end_port", "rules[2].ports[1].port",
		"rules[2].ports[2].protocol", "rules[2].ports[3].end_port", "rules[2].ports[4].end_port",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields with faults (-want +got):\n%s", diff)
	}
}

func policy(t *testing.T, message *namewardv1.Policy) ruleset.Policy {
	t.Helper()
	p, err := ruleset.ParsePolicy(message)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func name(t *testing.T, s string) domain.Name {
	t.Helper()
	n, err := domain.ParseName(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestExplain(t *testing.T) {
	rules := ruleset.New([]ruleset.Policy{
		policy(t, &namewardv1.Policy{
			Name: "policies/b", Priority: 10, Workloads: []*namewardv1.Workload{{Cidrs: []string{"10.0.0.0/8"}}, {Interface: "veth+", Cidrs: []string{"fd00::/8"}}},
			Rules: []*namewardv1.Rule{
				{Action: namewardv1.Rule_DENY, Domains: []string{"bad.example.com"}},
				{Action: namewardv1.Rule_ALLOW, Domains: []string{"*.example.com"}, Ports: []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: 443}}},
				{Action: namewardv1.Rule_ALLOW, Cidrs: []string{"192.0.2.0/24"}},
			},
		}),
		policy(t, &namewardv1.Policy{Name: "policies/a", Priority: 20, Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW}}}),
		policy(t, &namewardv1.Policy{Name: "policies/off", Mode: namewardv1.Policy_DISABLED}),
		policy(t, &namewardv1.Policy{
			Name: "policies/watch", Mode: namewardv1.Policy_AUDIT, Workloads: []*namewardv1.Workload{{Cidrs: []string{"10.0.0.0/8", "172.16.0.0/12"}}},
		}),
	})
	forwarded := ruleset.Connection{Source: netip.MustParseAddr("10.1.1.1"), Protocol: ruleset.TCP, Port: 443}
	with := func(edit func(*ruleset.Connection)) ruleset.Connection {
		c := forwarded
		edit(&c)
		return c
	}
	tests := []struct {
		fact       string
		connection ruleset.Connection
		verdict    ruleset.Action
		policy     string
		rule       int
	}{
		{"an allowed name opens its port", with(func(c *ruleset.Connection) { c.Names = []domain.Name{name(t, "a.example.com")} }), ruleset.Allow, "policies/b", 1},
		{"another port stays closed", with(func(c *ruleset.Connection) {
			c.Names, c.Port = []domain.Name{name(t, "a.example.com")}, 80
		}), ruleset.Deny, "", -1},
		{"the first rule of any name decides", with(func(c *ruleset.Connection) {
			c.Names = []domain.Name{name(t, "a.example.com"), name(t, "bad.example.com")}
		}), ruleset.Deny, "policies/b", 0},
		{"a CIDR destination needs no name", with(func(c *ruleset.Connection) { c.Destination = netip.MustParseAddr("192.0.2.7") }), ruleset.Allow, "policies/b", 2},
		{"no rule means no", forwarded, ruleset.Deny, "", -1},
		{"an unselected workload is not touched", with(func(c *ruleset.Connection) { c.Source = netip.MustParseAddr("11.0.0.1") }), ruleset.Allow, "", -1},
		{"audit alone does not deny", with(func(c *ruleset.Connection) { c.Source = netip.MustParseAddr("172.16.0.1") }), ruleset.Allow, "", -1},
		{"interface and CIDR must both match", with(func(c *ruleset.Connection) {
			c.Source, c.Interface = netip.MustParseAddr("fd00::1"), "eth0"
		}), ruleset.Allow, "", -1},
		{"interface and CIDR both match", with(func(c *ruleset.Connection) {
			c.Source, c.Interface = netip.MustParseAddr("fd00::1"), "veth9"
		}), ruleset.Deny, "", -1},
		{"the host's own rules", ruleset.Connection{Local: true, Protocol: ruleset.UDP, Port: 1}, ruleset.Allow, "policies/a", 0},
	}
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			got := rules.Explain(test.connection)
			if got.Verdict != test.verdict || got.Policy != test.policy || got.Rule != test.rule {
				t.Errorf("got verdict %v by %q rule %d, want %v by %q rule %d", got.Verdict, got.Policy, got.Rule, test.verdict, test.policy, test.rule)
			}
		})
	}
	if got := rules.Explain(forwarded); !got.Audited || got.AuditVerdict != ruleset.Deny {
		t.Errorf("audit beside enforcement: got %v, %v, want a denial", got.Audited, got.AuditVerdict)
	}
}

// anyPolicy draws a policy of few names, so that histories put, change and delete the same ones.
func anyPolicy(t *rapid.T) ruleset.Policy {
	message := &namewardv1.Policy{
		Name:     "policies/" + rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "name"),
		Priority: rapid.Int32Range(-1, 1).Draw(t, "priority"),
		Mode:     namewardv1.Policy_Mode(rapid.IntRange(0, 3).Draw(t, "mode")),
	}
	for range rapid.IntRange(0, 3).Draw(t, "rules") {
		message.Rules = append(message.Rules, &namewardv1.Rule{
			Action:  namewardv1.Rule_Action(rapid.IntRange(1, 2).Draw(t, "action")),
			Domains: rapid.SliceOfN(rapid.SampledFrom([]string{"a.test", "*.a.test", "B.test."}), 0, 3).Draw(t, "domains"),
			Cidrs:   rapid.SliceOfN(rapid.SampledFrom([]string{"10.0.0.0/8", "10.0.0.1", "fd00::/8"}), 0, 2).Draw(t, "cidrs"),
			Ports: rapid.SliceOfN(rapid.SampledFrom([]*namewardv1.Port{
				{Protocol: namewardv1.Protocol_TCP, Port: 443},
				{Protocol: namewardv1.Protocol_UDP, Port: 1, EndPort: 65535},
				{Protocol: namewardv1.Protocol_ICMP},
				{Protocol: namewardv1.Protocol_SCTP},
			}), 0, 2).Draw(t, "ports"),
		})
	}
	p, err := ruleset.ParsePolicy(message)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func anyRuleSet(t *rapid.T, label string) *ruleset.RuleSet {
	policies := rapid.SliceOfNDistinct(rapid.Custom(anyPolicy), 0, 4, func(p ruleset.Policy) string { return p.Name }).Draw(t, label)
	return ruleset.New(policies)
}

func TestChangesLeadFromOneToTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := anyRuleSet(t, "from"), anyRuleSet(t, "to")
		changes := from.Changes(to)
		got, err := from.With(changes)
		if err != nil {
			t.Fatal(err)
		}
		if got.ID() != to.ID() {
			t.Errorf("after %v: got %v, want %v", changes, got, to)
		}
		if from.ID() == to.ID() && len(changes) != 0 {
			t.Errorf("equal ids, yet changes: %v", changes)
		}
	})
}

func TestMessagesKeepTheContent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := anyRuleSet(t, "rules")
		got, err := ruleset.FromProto(want.ToProto())
		if err != nil {
			t.Fatal(err)
		}
		if got.ID() != want.ID() {
			t.Errorf("there and back: got %v, want %v", got, want)
		}
	})
}

func TestExplainSaysWhatBecameOfEachRule(t *testing.T) {
	tcp := func(port uint32) []*namewardv1.Port {
		return []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: port}}
	}
	rules := ruleset.New([]ruleset.Policy{
		policy(t, &namewardv1.Policy{Name: "policies/a", Rules: []*namewardv1.Rule{
			{Action: namewardv1.Rule_DENY, Domains: []string{"other.test"}},
			{Action: namewardv1.Rule_ALLOW, Domains: []string{"*.test"}, Ports: tcp(80)},
			{Action: namewardv1.Rule_ALLOW, Cidrs: []string{"192.0.2.0/24"}, Ports: tcp(443)},
			{Action: namewardv1.Rule_DENY},
		}}),
		policy(t, &namewardv1.Policy{Name: "policies/b", Mode: namewardv1.Policy_AUDIT, Rules: []*namewardv1.Rule{
			{Action: namewardv1.Rule_DENY, Domains: []string{"a.test"}},
		}}),
		policy(t, &namewardv1.Policy{Name: "policies/c", Workloads: []*namewardv1.Workload{{Cidrs: []string{"10.0.0.0/8"}}}}),
	})
	aTest, every := name(t, "a.test"), patterns(t, "*.test", "a.test")
	c := ruleset.Connection{
		Local: true, Destination: netip.MustParseAddr("192.0.2.1"), Names: []domain.Name{aTest}, Protocol: ruleset.TCP, Port: 443,
	}
	got := rules.Explain(c)
	want := ruleset.Explanation{
		Verdict: ruleset.Allow, Enforced: true, Policy: "policies/a", Rule: 2,
		Audited: true, AuditVerdict: ruleset.Deny, AuditPolicy: "policies/b", AuditRule: 0,
		Evaluations: []ruleset.Evaluation{
			{Policy: 0, Rule: -1, Outcome: ruleset.Selects},
			{Policy: 0, Rule: 0, Outcome: ruleset.OtherDestination},
			{Policy: 0, Rule: 1, Outcome: ruleset.OtherPorts, Match: ruleset.Match{Pattern: every[0], Name: aTest}},
			{Policy: 0, Rule: 2, Outcome: ruleset.Decides, Match: ruleset.Match{CIDR: netip.MustParsePrefix("192.0.2.0/24")}},
			{Policy: 0, Rule: 3, Outcome: ruleset.DecidedBefore, Match: ruleset.Match{Every: true}},
			{Policy: 1, Rule: -1, Outcome: ruleset.Selects},
			{Policy: 1, Rule: 0, Outcome: ruleset.Decides, Match: ruleset.Match{Pattern: every[1], Name: aTest}},
			{Policy: 2, Rule: -1, Outcome: ruleset.OtherWorkload},
		},
	}
	brief := want
	brief.Evaluations = []ruleset.Evaluation{want.Evaluations[0], want.Evaluations[3], want.Evaluations[5], want.Evaluations[6]}
	comparable := cmp.Comparer(func(a, b ruleset.Match) bool { return a == b })
	if diff := cmp.Diff(want, got, comparable); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(brief, rules.Decide(c), comparable); diff != "" {
		t.Errorf("Decide (-want +got):\n%s", diff)
	}
}

func TestRefusesSaysWhichRule(t *testing.T) {
	rules := ruleset.New([]ruleset.Policy{
		policy(t, &namewardv1.Policy{Name: "policies/a", Rules: []*namewardv1.Rule{
			{Action: namewardv1.Rule_DENY, Cidrs: []string{"0.0.0.0/0"}, QueryAction: namewardv1.Rule_REFUSE},
			{Action: namewardv1.Rule_ALLOW, Domains: []string{"a.test"}},
			{Action: namewardv1.Rule_DENY, QueryAction: namewardv1.Rule_REFUSE},
		}}),
		policy(t, &namewardv1.Policy{Name: "policies/b", Mode: namewardv1.Policy_AUDIT, Rules: []*namewardv1.Rule{
			{Action: namewardv1.Rule_DENY, Domains: []string{"a.test"}, QueryAction: namewardv1.Rule_REFUSE},
		}}),
	})
	local, aTest := ruleset.Connection{Local: true}, name(t, "a.test")
	match := ruleset.Match{Pattern: patterns(t, "a.test")[0], Name: aTest}
	for asked, want := range map[domain.Name]ruleset.Refusal{
		aTest: {
			Policy: "policies/a", Rule: 1, Match: match,
			AuditRefused: true, AuditPolicy: "policies/b", AuditRule: 0, AuditMatch: match,
		},
		name(t, "b.test"): {Refused: true, Policy: "policies/a", Rule: 2, Match: ruleset.Match{Every: true}, AuditRule: -1},
	} {
		if got := rules.Refuses(local, asked); got != want {
			t.Errorf("%s: got %+v, want %+v", asked, got, want)
		}
	}
}
