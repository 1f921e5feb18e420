package policy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

func TestParse(t *testing.T) {
	message := &namewardv1.Policy{
		Name: "policies/web", Description: "egress of web", Priority: -5, Mode: namewardv1.Policy_AUDIT,
		NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "web"}},
		Rules:        []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"*.Example.com."}}},
		CreateTime:   &timestamppb.Timestamp{Seconds: 1000},
	}
	p, err := policy.Parse(message)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	if p.Name != "policies/web" || p.Description != "egress of web" || p.Rules.Priority != -5 || p.Rules.Mode != ruleset.Audit {
		t.Errorf("Parse = %+v, want what the message says", p)
	}
	if p.CreateTime.Unix() != 1000 || !p.UpdateTime.IsZero() {
		t.Errorf("times = %v, %v, want 1000 and none", p.CreateTime, p.UpdateTime)
	}
	if got := p.Rules.Rules[0].Domains[0].String(); got != "*.example.com" {
		t.Errorf("pattern = %q, want the canonical form", got)
	}
}

// Names of Unicode are stored as A-labels; the message that was given keeps its rules.
func TestParseStoresALabels(t *testing.T) {
	rules := []*namewardv1.Rule{
		{Action: namewardv1.Rule_ALLOW, Domains: []string{"API.Example.com."}},
		{Action: namewardv1.Rule_ALLOW, Domains: []string{"*.Example.com", "*.b\u00fccher.Example", "www.*.\u4f8b\u3048"}},
	}
	given := &namewardv1.Policy{Name: "policies/web", Rules: slices.Clone(rules)}
	before := proto.CloneOf(given)
	p, err := policy.Parse(policy.Copy(given))
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{{"API.Example.com."}, {"*.Example.com", "*.xn--bcher-kva.example", "www.*.xn--r8jz45g"}}
	for i, rule := range p.Message.GetRules() {
		if diff := cmp.Diff(want[i], rule.GetDomains()); diff != "" {
			t.Errorf("rule %d (-want +got):\n%s", i, diff)
		}
	}
	if diff := cmp.Diff(before, given, protocmp.Transform()); diff != "" {
		t.Errorf("the message that was given changed (-want +got):\n%s", diff)
	}
}

func TestParseReportsEveryFault(t *testing.T) {
	_, err := policy.Parse(&namewardv1.Policy{
		Name:      "policies/Web",
		Workloads: []*namewardv1.Workload{{Cidrs: []string{"10.0.0.0/33"}}},
		Rules:     []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"ok.example", "a..b"}}},
	})
	joined, ok := err.(interface{ Unwrap() []error }) //nolint:errorlint // the shape is promised
	if !ok {
		t.Fatalf("Parse = %v, want joined errors", err)
	}
	var fields []string
	var walk func(errs []error)
	walk = func(errs []error) {
		for _, e := range errs {
			if more, ok := e.(interface{ Unwrap() []error }); ok { //nolint:errorlint // as above
				walk(more.Unwrap())
				continue
			}
			var fault *ruleset.FieldError
			if errors.As(e, &fault) {
				fields = append(fields, fault.Field)
			}
		}
	}
	walk(joined.Unwrap())
	if diff := cmp.Diff([]string{"name", "workloads[0].cidrs[0]", "rules[0].domains[1]"}, fields); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}

func TestName(t *testing.T) {
	for id, valid := range map[string]bool{
		"a": true, "web-egress.v2": true, "9": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a/b": false, "ä": false, "a_b": false, strings.Repeat("a", 64): false,
	} {
		if _, err := policy.Parse(&namewardv1.Policy{Name: policy.Collection + id}); (err == nil) != valid {
			t.Errorf("Parse of %q = %v, want valid %t", policy.Collection+id, err, valid)
		}
	}
}

func TestSelects(t *testing.T) {
	for name, test := range map[string]struct {
		selector, labels map[string]string
		want             bool
	}{
		"no selector selects a node without labels": {nil, nil, true},
		"no selector selects every node":            {nil, map[string]string{"role": "web"}, true},
		"equal labels":                              {map[string]string{"role": "web"}, map[string]string{"role": "web"}, true},
		"labels beyond those asked for":             {map[string]string{"role": "web"}, map[string]string{"role": "web", "zone": "a"}, true},
		"another value":                             {map[string]string{"role": "web"}, map[string]string{"role": "db"}, false},
		"a label missing":                           {map[string]string{"role": "web", "zone": "a"}, map[string]string{"role": "web"}, false},
		"an empty value is not a missing label":     {map[string]string{"role": ""}, nil, false},
	} {
		if got := (&policy.Policy{Selector: test.selector}).Selects(test.labels); got != test.want {
			t.Errorf("%s: Selects = %t, want %t", name, got, test.want)
		}
	}
}

func TestCopyLeavesTheOriginal(t *testing.T) {
	original := &namewardv1.Policy{Name: "policies/web", Etag: "x", Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_DENY}}}
	before := proto.Clone(original)
	out := policy.WithoutOutput(original)
	out.Name, out.Rules = "policies/other", nil
	if diff := cmp.Diff(before, proto.Message(original), protocmp.Transform()); diff != "" {
		t.Errorf("original (-before +after):\n%s", diff)
	}
	if out.GetEtag() != "" {
		t.Errorf("etag = %q, want none", out.GetEtag())
	}
}

// Whatever comes over the wire, Parse neither panics nor keeps a name that no list could show; what it
// accepts it accepts again, which a restart of the server relies on.
func FuzzParse(f *testing.F) {
	seed, err := proto.Marshal(&namewardv1.Policy{
		Name:      "policies/web",
		Workloads: []*namewardv1.Workload{{Cidrs: []string{"10.1.0.0/24"}}, {Interface: "cni+"}, {Host: true}},
		Rules: []*namewardv1.Rule{{
			Action: namewardv1.Rule_ALLOW, Domains: []string{"api.github.com", "*.docker.io"}, Cidrs: []string{"fd00::/8"},
			Ports: []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: 443, EndPort: 444}},
		}},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, raw []byte) {
		message := &namewardv1.Policy{}
		if proto.Unmarshal(raw, message) != nil {
			return
		}
		p, err := policy.Parse(message)
		if err != nil {
			return
		}
		stored, err := proto.Marshal(p.Message)
		if err != nil {
			t.Fatalf("an accepted policy cannot be encoded: %v", err)
		}
		again := &namewardv1.Policy{}
		if err := proto.Unmarshal(stored, again); err != nil {
			t.Fatalf("an accepted policy cannot be decoded: %v", err)
		}
		if _, err := policy.Parse(again); err != nil {
			t.Errorf("an accepted policy is refused when it is read again: %v", err)
		}
	})
}
