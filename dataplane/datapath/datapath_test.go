package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/enforce"
)

func TestLearnedNameOpensItsAddress(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("www.example.com", "*.example.org")))
	if f.opens(t, "198.51.100.1:443") {
		t.Error("open before it was resolved")
	}
	f.resolve(t, "www.example.com", 60, "www.example.com. IN A 198.51.100.1")
	f.resolve(t, "a.b.example.org", 60, "a.b.example.org. IN CNAME cdn.test.", "cdn.test. IN A 198.51.100.2")
	f.resolve(t, "example.org", 60, "example.org. IN A 198.51.100.3")
	for destination, want := range map[string]bool{
		"198.51.100.1:443": true, "198.51.100.2:443": true, "198.51.100.3:443": false, "198.51.100.4:443": false,
	} {
		if got := f.opens(t, destination); got != want {
			t.Errorf("%s: open %v, want %v", destination, got, want)
		}
	}
	counters, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint64{
		"dns_responses_learned": 2, "dns_responses_unmatched": 1, "verdicts_allow": 2, "verdicts_deny": 3, "mappings_created": 2,
	} {
		if counters[name] != want {
			t.Errorf("%s: got %d, want %d", name, counters[name], want)
		}
	}
}

func TestPolicyOpensNamesThatWereResolvedBefore(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("other.example.com")))
	f.resolve(t, "www.example.com", 60, "www.example.com. IN CNAME cdn.test.", "cdn.test. IN A 198.51.100.1")
	if f.opens(t, "198.51.100.1:443") {
		t.Fatal("open though no rule names it")
	}
	f.apply(t, hostRules(t, allow("www.example.com")))
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("not open under the policy that names it")
	}
	f.apply(t, hostRules(t, allow("*.test")))
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("not open under a policy that names its alias")
	}
	f.apply(t, hostRules(t, allow("other.example.com")))
	if f.opens(t, "198.51.100.1:443") {
		t.Error("open when no rule names it any more")
	}
}

func TestRestartForgetsNothing(t *testing.T) {
	f := newFixture(t)
	rules := hostRules(t, allow("www.example.com", "late.example.com"))
	f.apply(t, rules)
	f.resolve(t, "www.example.com", 60, "www.example.com. IN A 198.51.100.1")
	f.resolve(t, "new.example.com", 60, "new.example.com. IN A 198.51.100.2")
	if err := f.locked(f.drain); err != nil {
		t.Fatal(err)
	}
	f.resolve(t, "late.example.com", 60, "late.example.com. IN A 198.51.100.3")
	f.restart(t)
	for _, destination := range []string{"198.51.100.1:443", "198.51.100.3:443"} {
		if !f.opens(t, destination) {
			t.Errorf("%s is not open after the restart", destination)
		}
	}
	before := f.lowering.NextMatchSet()
	f.apply(t, rules)
	if after := f.lowering.NextMatchSet(); after != before {
		t.Errorf("the same rule set took %d new match sets", after-before)
	}
	f.apply(t, hostRules(t, allow("new.example.com", "late.example.com")))
	for destination, want := range map[string]bool{"198.51.100.1:443": false, "198.51.100.2:443": true, "198.51.100.3:443": true} {
		if got := f.opens(t, destination); got != want {
			t.Errorf("%s under the next rule set: open %v, want %v", destination, got, want)
		}
	}
}

func TestJournalLostStillEnforces(t *testing.T) {
	f := newFixture(t)
	rules := hostRules(t, allow("www.example.com"))
	f.apply(t, rules)
	f.resolve(t, "www.example.com", 60, "www.example.com. IN A 198.51.100.1")
	f.cfg.StateDir = t.TempDir()
	f.restart(t) // the event is still in the ring buffer
	f.apply(t, rules)
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("not open after the journal was lost")
	}
}

// Rule sets change while packets are judged: what both allow is never denied, what both deny never
// allowed.
func TestSwitchIsWhole(t *testing.T) {
	f := newFixture(t)
	// One allows a through a rule by name, the other by an earlier catch-all; b never.
	first := hostRules(t, allow("a.example.com"), `{"action": "DENY", "cidrs": ["198.51.100.2"]}`, `{"action": "ALLOW", "cidrs": ["198.51.100.3"]}`)
	second := hostRules(t, `{"action": "DENY", "cidrs": ["198.51.100.2/31"]}`, `{"action": "ALLOW"}`)
	f.apply(t, first)
	f.resolve(t, "a.example.com", 3600, "a.example.com. IN A 198.51.100.1")
	done := make(chan struct{})
	var g errgroup.Group
	var judged atomic.Uint64
	for destination, want := range map[string]uint32{"198.51.100.1:443": 0, "198.51.100.2:443": 1} {
		packet := bpftest.Connection(bpftest.TCP, testOrigin, netip.MustParseAddrPort(destination))
		program := f.kernel.programs[bpf.DatapathProgEgressLocal]
		g.Go(func() error {
			for {
				select {
				case <-done:
					return nil
				default:
				}
				verdict, err := program.Run(&ebpf.RunOptions{Data: packet, Repeat: 1})
				if err != nil {
					return err
				}
				judged.Add(1)
				if verdict != want {
					return fmt.Errorf("%s: verdict %d, want %d under either rule set", destination, verdict, want)
				}
			}
		})
	}
	for i := range 40 {
		rules := first
		if i%2 == 0 {
			rules = second
		}
		f.apply(t, rules)
	}
	close(done)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d packets judged over 40 switches", judged.Load())
}

// Fresh names are resolved and connected to at once while rule sets change under them, all of which
// allow the names, each by other match sets: none is refused.
func TestNoFirstPacketIsLostOverASwitch(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxMappings = 1 << 16 })
	first := hostRules(t, allow("*.example.com", "a.test"))
	second := hostRules(t, `{"action": "DENY", "cidrs": ["203.0.113.0/24"]}`, allow("*.com"), allow("*.example.com"))
	f.apply(t, first)
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	g.Go(func() error { return f.Run(ctx) })
	g.Go(func() error {
		for i := 0; ctx.Err() == nil; i++ {
			rules := first
			if i%2 == 0 {
				rules = second
			}
			if err := f.Apply(t.Context(), rules); err != nil {
				return err
			}
		}
		return nil
	})
	refused := 0
	const names = 3000
	for i := range names {
		f.resolve(t, fmt.Sprintf("n%d.example.com", i), 60, fmt.Sprintf("n%d.example.com. IN A 198.18.%d.%d", i, i>>8, i&255))
		if !f.opens(t, fmt.Sprintf("198.18.%d.%d:443", i>>8, i&255)) {
			refused++
		}
	}
	atOnce := refused
	for i := range names {
		if !f.opens(t, fmt.Sprintf("198.18.%d.%d:443", i>>8, i&255)) {
			refused++
		}
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	if refused > 0 {
		t.Errorf("%d of %d packets were refused, %d of them at once", refused, 2*names, atOnce)
	}
	t.Logf("%d packets, %d match sets were given out", 2*names, f.lowering.NextMatchSet())
}

func TestFullMapKeepsWhatIsInForce(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxPatterns = 64 })
	f.apply(t, hostRules(t, allow("a.example.com")))
	f.resolve(t, "a.example.com", 60, "a.example.com. IN A 198.51.100.1")
	var many []string
	for i := range 1000 {
		many = append(many, fmt.Sprintf("n%d.example.com", i))
	}
	if err := f.Apply(t.Context(), hostRules(t, allow(many...))); !errors.Is(err, enforce.ErrFull) {
		t.Fatalf("got %v, want ErrFull", err)
	}
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("what was in force no longer is")
	}
	f.apply(t, hostRules(t, allow("*.example.com")))
	f.apply(t, hostRules(t, allow("a.example.com", "b.example.com")))
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("not open under the next rule set that fits")
	}
}

// Run takes in what the programs learn and keeps links in step, and ends with its context.
func TestRunHandsOnWhatIsLearned(t *testing.T) {
	f := newFixture(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	_, _, changed := f.table.Changes(0, 0)
	f.resolve(t, "www.example.com", 60, "www.example.com. IN A 198.51.100.1")
	select {
	case <-changed:
	case <-ctx.Done():
		t.Fatal("the answer was not handed on")
	}
	live := f.table.Live(time.Now(), nil)
	if len(live) != 1 || live[0].Domain.String() != "www.example.com" || live[0].Client != testClient.Addr() {
		t.Errorf("got %+v", live)
	}
	if until := time.Until(live[0].ExpiresAt); until < 80*time.Second || until > 91*time.Second {
		t.Errorf("expires in %v, want TTL and grace: 90 s", until)
	}
	cancel()
	if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("run: %v", err)
	}
}
