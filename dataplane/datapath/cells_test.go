package datapath

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sync/errgroup"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/enforce"
)

// hostsWith is a policy for each of so many sources of one address, which may go to one address more than the one
// before, and what a policy for all says besides.
func hostsWith(t testing.TB, hosts int, rules ...string) *ruleset.RuleSet {
	t.Helper()
	list := []string{`{"name": "policies/all", "mode": "ENFORCE", "established": "CUT", "workloads": [{"cidrs": ["10.0.0.0/8"]}], "rules": [` + strings.Join(rules, ", ") + `]}`}
	for i := range hosts {
		list = append(list, fmt.Sprintf(`{"name": "policies/host%05d", "mode": "ENFORCE", "established": "CUT", "workloads": [{"cidrs": ["10.7.%d.%d"]}], "rules": [{"action": "ALLOW", "cidrs": ["198.51.100.1"]}]}`, i, i>>8, i&255))
	}
	return policies(t, list...)
}

func (f *fixture) forwards(t testing.TB, from, to string) bool {
	t.Helper()
	packet := bpftest.Connection(bpftest.TCP, netip.AddrPortFrom(netip.MustParseAddr(from), 4000), netip.AddrPortFrom(netip.MustParseAddr(to), 443))
	return f.run(t, bpf.DatapathProgEgressForwarded, packet) == 0
}

func TestCellsAreReadBack(t *testing.T) {
	f := newFixture(t)
	for _, hosts := range []int{300, 10, 700, 700, 0, 50} {
		f.apply(t, hostsWith(t, hosts))
		got, err := f.kernel.readGeneration(f.active)
		if err != nil {
			t.Fatal(err)
		}
		want := f.held[f.active]
		if !maps.Equal(got.hosts, want.hosts) || !maps.Equal(got.verdicts, want.verdicts) || got.flags != want.flags {
			t.Errorf("%d hosts: %d and %d cells are read back, want %d and %d, with flags %+v and %+v", hosts,
				len(got.hosts), len(got.verdicts), len(want.hosts), len(want.verdicts), got.flags, want.flags)
		}
		if got, want := f.forwards(t, "10.7.0.0", "198.51.100.1"), hosts > 0; got != want {
			t.Errorf("%d hosts: passes %v, want %v", hosts, got, want)
		}
	}
	f.restart(t)
	f.apply(t, hostsWith(t, 20))
	if !f.forwards(t, "10.7.0.19", "198.51.100.1") || f.forwards(t, "10.7.0.20", "198.51.100.1") {
		t.Error("after a restart: other hosts than those of the rule set pass")
	}
}

// More verdicts than there is room for are refused before anything changes, with the limit.
func TestFullCellsKeepWhatIsInForce(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostsWith(t, 10))
	rules := []string{allow("a.example.com")}
	for i := range 360 {
		rules = append(rules, fmt.Sprintf(`{"action": "ALLOW", "cidrs": ["203.0.%d.%d"]}`, i>>8, i&255))
	}
	err := f.Apply(t.Context(), hostsWith(t, 400, rules...))
	if !errors.Is(err, enforce.ErrFull) || !strings.Contains(err.Error(), "131072") {
		t.Errorf("got %v, want ErrFull with the limit", err)
	}
	if f.names.find("a.example.com") != nil {
		t.Error("names of the refused rule set are in the tables")
	}
	if !f.forwards(t, "10.7.0.9", "198.51.100.1") || f.forwards(t, "10.7.0.9", "203.0.0.1") {
		t.Error("what was in force no longer is")
	}
	f.apply(t, hostsWith(t, 400, rules[:200]...))
	if !f.forwards(t, "10.7.1.9", "203.0.0.1") {
		t.Error("not open under the next rule set that fits")
	}
}

// Tables of few hosts and of thousands take turns: no packet ever sees what is half written.
func TestNoPacketSeesHalfATable(t *testing.T) {
	f := newFixture(t)
	few, many := hostsWith(t, 40), hostsWith(t, 3000)
	f.apply(t, few)
	done := make(chan struct{})
	var g errgroup.Group
	var judged atomic.Uint64
	for destination, want := range map[string]uint32{"198.51.100.1:443": 0, "198.51.100.2:443": 1} {
		g.Go(func() error {
			program := f.kernel.programs[bpf.DatapathProgEgressForwarded]
			for i := byte(0); ; i = (i + 1) % 40 {
				select {
				case <-done:
					return nil
				default:
				}
				from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 7, 0, i}), 4000)
				verdict, err := program.Run(&ebpf.RunOptions{Data: bpftest.Connection(bpftest.TCP, from, netip.MustParseAddrPort(destination)), Repeat: 1})
				if err != nil {
					return err
				}
				judged.Add(1)
				if verdict != want {
					return fmt.Errorf("%s to %s: verdict %d, want %d under either rule set", from, destination, verdict, want)
				}
			}
		})
	}
	for range 8 {
		f.apply(t, many)
		f.apply(t, few)
	}
	close(done)
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	t.Logf("%d packets judged over 16 switches", judged.Load())
}
