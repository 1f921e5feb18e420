package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sync/errgroup"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/preflight"
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

func TestIndexIsReadBack(t *testing.T) {
	f := newFixture(t)
	var list []string
	for i := range 2000 {
		list = append(list, fmt.Sprintf("n%d.%s.example.com", i, strings.Repeat("x", i%64/2+1)))
	}
	f.apply(t, hostRules(t, allow(list...)))
	f.apply(t, hostRules(t, allow(list[:1000]...)))
	want := f.names.nameIndex
	got, err := readNameIndex(f.names.key, f.kernel.NameIndex, f.kernel.NameCells)
	if err != nil {
		t.Fatal(err)
	}
	if len(slices.Collect(got.all())) != len(slices.Collect(want.all())) {
		t.Errorf("got %d names, want %d", len(slices.Collect(got.all())), len(slices.Collect(want.all())))
	}
	for e := range want.all() {
		if g := got.find(e.name); g == nil || *g != *e {
			t.Errorf("%s: got %+v, want %+v", e.name, g, e)
		}
	}
	f.restart(t)
	f.apply(t, hostRules(t, allow("a.example.com")))
	f.apply(t, hostRules(t, allow("a.example.com")))
	f.apply(t, hostRules(t, allow("a.example.com")))
	if n := len(slices.Collect(f.names.all())); n != 1 {
		t.Errorf("%d names are left in the index, want 1", n)
	}
}

// Whatever pins a crash leaves behind, the next start completes.
func TestStartCompletesWhatACrashLeft(t *testing.T) {
	f := newFixture(t)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	programs, err := os.ReadDir(f.cfg.programDir())
	if err != nil {
		t.Fatal(err)
	}
	for i, pin := range programs {
		if i%2 == 0 {
			if err := os.Remove(filepath.Join(f.cfg.programDir(), pin.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.open(t)
	f.apply(t, hostRules(t, allow("a.example.com")))
	f.resolve(t, "a.example.com", 60, "a.example.com. IN A 198.51.100.1")
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("not open with completed pins")
	}
}

func TestProgramsOfOtherMapsAreNotAdopted(t *testing.T) {
	f := newFixture(t)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(f.cfg.mapDir(), bpf.DatapathMapState)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f.cfg, f.table, f.flows); !errors.Is(err, ErrLayoutMismatch) {
		t.Errorf("got %v, want ErrLayoutMismatch", err)
	}
}

func TestRetireAndRemovePins(t *testing.T) {
	f := newFixture(t)
	other := filepath.Join(f.cfg.programDir(), "dns_query_local-0123456789ab")
	if err := f.kernel.programs[bpf.DatapathProgDnsUntrusted].Pin(filepath.Join(f.cfg.programDir(), "spare")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(f.cfg.programDir(), "spare"), other); err != nil {
		t.Fatal(err)
	}
	if err := f.RetirePrograms(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other build's program: got %v, want none", err)
	}
	if _, err := os.Stat(f.Programs().DNSQueryLocal); err != nil {
		t.Errorf("this build's program: %v", err)
	}
	if err := errors.Join(f.Close(), Remove(f.cfg.PinDir), Remove(f.cfg.PinDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.cfg.PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory of pins: got %v, want none", err)
	}
}

func TestProbe(t *testing.T) {
	f := newFixture(t)
	for _, r := range Probe(filepath.Join(f.cfg.PinDir, "below", "there")) {
		if r.Level != preflight.OK {
			t.Errorf("%s: %s", r.Name, r.Detail)
		}
	}
	levels := map[string]preflight.Level{}
	for _, r := range Probe(t.TempDir()) {
		levels[r.Name] = r.Level
		if r.Level != preflight.OK && (r.Detail == "" || r.Remedy == "") {
			t.Errorf("%s: neither detail nor remedy", r.Name)
		}
	}
	if levels["bpf file system"] != preflight.Failed {
		t.Error("an ordinary directory passes for a bpf file system")
	}
}

// TestProbeNamesFeatures: a program, map or helper that the kernel does not have is named.
func TestProbeNamesFeatures(t *testing.T) {
	bpftest.RequirePrivileged(t)
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"m": {Type: ebpf.MapType(250)}, "a": {Type: ebpf.Array}},
		Programs: map[string]*ebpf.ProgramSpec{"p": {Type: ebpf.SocketFilter, Instructions: asm.Instructions{
			asm.FnMapLookupElem.Call(), asm.FnSkbSetTunnelKey.Call(), asm.Return(),
		}}},
	}
	details := map[string]string{}
	for _, r := range probeFeatures(spec) {
		if r.Level == preflight.Failed {
			details[r.Name] = r.Detail
		}
	}
	if len(details) != 2 || !strings.Contains(details["map types"], "250") || !strings.HasPrefix(details["helpers"], "FnSkbSetTunnelKey") {
		t.Errorf("got %v, want the map type and the helper that are missing", details)
	}
}

// TestPinProbe: a program that is pinned for a rule goes with it.
func TestPinProbe(t *testing.T) {
	f := newFixture(t)
	path, remove, err := PinProbe(filepath.Join(f.cfg.PinDir, "below"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ebpf.LoadPinnedProgram(path, nil); err != nil {
		t.Error(err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pin is left: %v", err)
	}
}

// What the kernel does not take leaves no pin behind.
func TestRefusedOpenLeavesNothing(t *testing.T) {
	f := newFixture(t)
	cfg := f.cfg
	cfg.PinDir, cfg.StateDir, cfg.MaxMappings = filepath.Join(filepath.Dir(f.cfg.PinDir), "other"), t.TempDir(), 1<<31
	if d, err := Open(cfg, f.table, f.flows); err == nil {
		_ = d.Close()
		t.Fatal("the kernel takes a map of 2³¹ entries: this test needs another fault")
	}
	if _, err := os.Stat(cfg.PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
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

// A build that counts more than the one before adopts all but the counters.
func TestFewerCountersAreReplaced(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t))
	if f.opens(t, "192.0.2.1:443") {
		t.Fatal("opens without a rule")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(f.cfg.programDir()); err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(f.cfg.mapDir(), bpf.DatapathMapCounters)
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	fewer, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer fewer.Close()
	if err := fewer.Pin(pin); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if f.opens(t, "192.0.2.1:443") {
		t.Error("opens after the restart")
	}
	counters, err := f.Counters()
	if err != nil || counters["verdicts_deny"] != 1 || counters["flow_events_told"] != 1 {
		t.Errorf("counters %v, error %v, want one verdict, told", counters, err)
	}
}
