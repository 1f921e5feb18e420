// Package enforcetest states what any enforce.Maps and enforce.Hooks must do, as suites that run on
// the kernel's and on the fakes alike, and holds those fakes, which keep state and the same promises.
package enforcetest

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"testing"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

// Maps is a fake of the datapath's maps: it holds one rule set, and as many patterns as it has room for.
type Maps struct {
	mu    sync.Mutex // guards all below
	room  int
	rules *ruleset.RuleSet
	fault error
	count int
}

// NewMaps returns maps with room for so many domain patterns.
func NewMaps(room int) *Maps { return &Maps{room: room, rules: &ruleset.RuleSet{}} }

// Apply puts a rule set in force, whole.
func (m *Maps) Apply(ctx context.Context, rules *ruleset.RuleSet) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count++
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.fault != nil {
		return m.fault
	}
	patterns := map[domain.Pattern]bool{}
	for _, set := range rules.DomainSets {
		for _, pattern := range set.Domains {
			patterns[pattern] = true
		}
	}
	for _, policy := range rules.Policies {
		for _, rule := range policy.Rules {
			for _, pattern := range rule.Domains {
				patterns[pattern] = true
			}
		}
	}
	if len(patterns) > m.room {
		return enforce.ErrFull
	}
	m.rules = rules
	return nil
}

// Holds reports whether rules are what is in force.
func (m *Maps) Holds(rules *ruleset.RuleSet) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rules.ID() == rules.ID(), nil
}

// Fail makes each Apply return err; nil ends that.
func (m *Maps) Fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = err
}

// Applied returns the rule set in force and how often Apply was called.
func (m *Maps) Applied() (*ruleset.RuleSet, int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rules, m.count
}

// Verdict judges a connection by what is in force.
func (m *Maps) Verdict(c ruleset.Connection) ruleset.Action {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rules.Explain(c).Verdict
}

// MapsSubject is what TestMaps tests: maps with nothing in force, and a judge of connections that were
// opened to an address.
type MapsSubject interface {
	enforce.Maps
	Verdict(c ruleset.Connection) ruleset.Action
}

// TestMaps states what any Maps must do. Each subject has room for at most 1,000 domain patterns.
func TestMaps(t *testing.T, newMaps func(t *testing.T) MapsSubject) {
	web, strict, full := ruleSet("192.0.2.0/24", 443, 0), ruleSet("198.51.100.0/24", 0, 0), ruleSet("192.0.2.0/24", 0, 1001)
	t.Run("before the first rule set nothing is denied", func(t *testing.T) {
		judge(t, newMaps(t), &ruleset.RuleSet{})
	})
	t.Run("a rule set is in force when Apply returns", func(t *testing.T) {
		maps := newMaps(t)
		apply(t, maps, web)
		judge(t, maps, web)
	})
	t.Run("the next one replaces it whole", func(t *testing.T) {
		maps := newMaps(t)
		for _, rules := range []*ruleset.RuleSet{web, strict, web, strict, strict} {
			apply(t, maps, rules)
			judge(t, maps, rules)
		}
	})
	t.Run("an empty one lifts everything", func(t *testing.T) {
		maps := newMaps(t)
		apply(t, maps, strict)
		apply(t, maps, &ruleset.RuleSet{})
		judge(t, maps, &ruleset.RuleSet{})
	})
	t.Run("one that does not fit leaves the last in force", func(t *testing.T) {
		maps := newMaps(t)
		apply(t, maps, strict)
		if err := maps.Apply(t.Context(), full); !errors.Is(err, enforce.ErrFull) {
			t.Errorf("Apply of 1,001 patterns: got %v, want ErrFull", err)
		}
		judge(t, maps, strict)
		apply(t, maps, web)
		judge(t, maps, web)
	})
	t.Run("it is known what is in force", func(t *testing.T) {
		maps := newMaps(t)
		expect := func(when string, rules *ruleset.RuleSet, want bool) {
			t.Helper()
			if got, err := maps.Holds(rules); err != nil || got != want {
				t.Errorf("%s: got %t, %v, want %t", when, got, err, want)
			}
		}
		expect("nothing yet", web, false)
		apply(t, maps, web)
		expect("applied", web, true)
		if err := maps.Apply(t.Context(), full); err == nil {
			t.Error("Apply of 1,001 patterns succeeded")
		}
		expect("the next one did not fit", web, true)
		expect("the next one did not fit", full, false)
	})
	t.Run("a cancelled Apply leaves the last in force", func(t *testing.T) {
		maps := newMaps(t)
		apply(t, maps, strict)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := maps.Apply(ctx, web); !errors.Is(err, context.Canceled) {
			t.Errorf("Apply: got %v, want Canceled", err)
		}
		judge(t, maps, strict)
	})
}

func apply(t *testing.T, maps MapsSubject, rules *ruleset.RuleSet) {
	t.Helper()
	if err := maps.Apply(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
}

// judge compares verdicts with those of the reference evaluation.
func judge(t *testing.T, maps MapsSubject, rules *ruleset.RuleSet) {
	t.Helper()
	for _, c := range []ruleset.Connection{
		connection("10.1.0.7", "192.0.2.1", 443),
		connection("10.1.0.7", "192.0.2.1", 80),
		connection("10.1.0.7", "198.51.100.1", 443),
		connection("10.2.0.7", "192.0.2.1", 443),
	} {
		if got, want := maps.Verdict(c), rules.Explain(c).Verdict; got != want {
			t.Errorf("verdict on %v to %v port %d: got %v, want %v", c.Source, c.Destination, c.Port, got, want)
		}
	}
}

func connection(source, destination string, port uint16) ruleset.Connection {
	return ruleset.Connection{
		Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr(destination),
		Protocol: ruleset.TCP, Port: port,
	}
}

// ruleSet allows 10.1.0.0/16 one prefix and port (0: all), and so many names that nobody resolved.
func ruleSet(prefix string, port uint16, names int) *ruleset.RuleSet {
	allow := ruleset.Rule{CIDRs: []netip.Prefix{netip.MustParsePrefix(prefix)}}
	if port != 0 {
		allow.Ports = []ruleset.Ports{{Protocol: ruleset.TCP, First: port, Last: port}}
	}
	rules := []ruleset.Rule{allow}
	if names > 0 {
		rules = append(rules, ruleset.Rule{Domains: Patterns(names)})
	}
	return ruleset.New([]ruleset.Policy{{
		Name:      "policies/test",
		Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}},
		Rules:     rules,
	}})
}
