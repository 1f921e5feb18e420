package netfilter_test

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
	"github.com/nameward/nameward/dataplane/preflight"
)

func TestProbeLeavesNothing(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		pin := pinPrograms(t, netfiltertest.EnterNode(t), "1").DNSResponse
		names := map[string]bool{}
		for _, r := range netfilter.Probe(t.Context(), config(backend, netfilter.Programs{}), pin) {
			names[r.Name] = true
			if r.Level != preflight.OK || strings.Contains(r.Detail, "rehearsed") {
				t.Errorf("%s: %s", r.Name, r.Detail)
			}
		}
		for _, want := range []string{"iptables defragmentation", "ip6tables defragmentation", "ip6tables pinned programs"} {
			if !names[want] {
				t.Errorf("not tried: %s", want)
			}
		}
		if text := rules(t, backend); text != "" {
			t.Errorf("Probe left:\n%s", text)
		}
	})
}

// TestProbeNeedsItsPin: that programs can be pinned and called is tried, not taken from a version.
func TestProbeNeedsItsPin(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		bpfDir := netfiltertest.EnterNode(t)
		for _, pin := range []string{"", filepath.Join(bpfDir, "absent")} {
			var failed []string
			for _, r := range netfilter.Probe(t.Context(), config(backend, netfilter.Programs{}), pin) {
				if r.Level == preflight.Failed {
					failed = append(failed, r.Name)
				}
			}
			if got := strings.Join(failed, ", "); got != "iptables pinned programs, ip6tables pinned programs" {
				t.Errorf("pin %q: failed: %s", pin, got)
			}
		}
	})
}

// TestProbeRehearses: without the right to make a network namespace the rules are tried, and not written.
func TestProbeRehearses(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		pin := pinPrograms(t, netfiltertest.EnterNode(t), "1").DNSResponse
		withoutAdmin(t)
		for _, r := range netfilter.Probe(t.Context(), config(backend, netfilter.Programs{}), pin) {
			if r.Level != preflight.OK {
				t.Errorf("%s: %s", r.Name, r.Detail)
			}
			if strings.Contains(r.Name, "match") && !strings.Contains(r.Detail, "rehearsed") {
				t.Errorf("%s does not say how it was tried: %s", r.Name, r.Detail)
			}
		}
		if text := rules(t, backend); text != "" {
			t.Errorf("Probe left:\n%s", text)
		}
		for _, r := range netfilter.Probe(t.Context(), config(backend, netfilter.Programs{}), "/nowhere") {
			if strings.Contains(r.Name, "pinned") && r.Level != preflight.Failed {
				t.Errorf("a pin that is not there: %+v", r)
			}
		}
	})
}

// withoutAdmin takes CAP_SYS_ADMIN from the calling thread, and from the processes that it starts, until the
// test is over.
func withoutAdmin(t *testing.T) {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var held [2]unix.CapUserData
	if err := unix.Capget(&header, &held[0]); err != nil {
		t.Fatal(err)
	}
	less := held
	less[0].Effective &^= 1 << unix.CAP_SYS_ADMIN
	if err := unix.Capset(&header, &less[0]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Capset(&header, &held[0]); err != nil {
			t.Error(err)
		}
	})
}

// TestConflicts finds what others do with our bit and labels, in each table, family and backend.
func TestConflicts(t *testing.T) {
	tests := []struct {
		rule  string
		level map[string]preflight.Level // by requirement
		names string                     // in the detail
	}{
		{"iptables-nft -t mangle -A PREROUTING -j MARK --set-mark 0x10000000", map[string]preflight.Level{"mark bit 0x10000000": preflight.Failed}, "iptables-nft -t mangle -A PREROUTING"},
		{"ip6tables-legacy -t raw -A OUTPUT -p udp -j MARK --or-mark 0x30000000", map[string]preflight.Level{"mark bit 0x10000000": preflight.Failed}, "ip6tables-legacy -t raw -A OUTPUT -p udp"},
		{"iptables-nft -t nat -A PREROUTING -m mark --mark 0x10000000/0x10000000 -j ACCEPT", map[string]preflight.Level{"mark bit 0x10000000": preflight.Warning}, "-t nat"},
		{"iptables-legacy -t mangle -A FORWARD -m connlabel --label 127 --set", map[string]preflight.Level{"connection labels 124 to 127": preflight.Failed}, "iptables-legacy -t mangle -A FORWARD"},
		{"ip6tables-nft -t filter -A INPUT -m connlabel --label 126 -j ACCEPT", map[string]preflight.Level{"connection labels 124 to 127": preflight.Warning}, "ip6tables-nft -t filter"},
		{"iptables-nft -t mangle -A PREROUTING -j MARK --set-mark 0x1", nil, ""},
	}
	for _, test := range tests {
		t.Run(test.rule, func(t *testing.T) {
			netfiltertest.EnterNode(t)
			fields := strings.Fields(test.rule)
			command(t, fields[0], append([]string{"-w"}, fields[1:]...)...)
			for _, r := range netfilter.Conflicts(t.Context(), netfilter.NFT, mark) {
				want, ok := test.level[r.Name]
				if !ok {
					want = preflight.OK
				}
				if r.Name == "iptables backends" {
					if got := r.Level == preflight.Warning; got != strings.Contains(fields[0], "legacy") {
						t.Errorf("%+v", r)
					}
					continue
				}
				if r.Level != want || !strings.Contains(r.Detail, test.names) && want != preflight.OK || (r.Remedy == "") != (want == preflight.OK) {
					t.Errorf("got %+v, want %s and %q", r, want, test.names)
				}
			}
		})
	}
	t.Run("both backends, and ours in one", func(t *testing.T) {
		ensure(t, open(t, config(netfilter.NFT, pinPrograms(t, netfiltertest.EnterNode(t), "1"))))
		for _, r := range netfilter.Conflicts(t.Context(), netfilter.NFT, mark) {
			if r.Level != preflight.OK {
				t.Errorf("our own rules are in our way: %+v", r)
			}
		}
		command(t, "iptables-nft", "-A", "INPUT", "-j", "ACCEPT")
		command(t, "ip6tables-legacy", "-A", "INPUT", "-j", "ACCEPT")
		r := netfilter.Conflicts(t.Context(), netfilter.NFT, mark)[0]
		if r.Level != preflight.Warning || !strings.Contains(r.Detail, "iptables-nft -t filter -A INPUT") || !strings.Contains(r.Detail, "ip6tables-legacy -t filter -A INPUT") {
			t.Errorf("both backends: %+v", r)
		}
	})
}
