package netfilter_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
)

const mark = 0x10000000

func config(backend string, programs netfilter.Programs) netfilter.Config {
	return netfilter.Config{
		Backend:  backend,
		Programs: programs,
		Resolvers: []netip.AddrPort{
			netip.MustParseAddrPort("192.0.2.53:53"),
			netip.MustParseAddrPort("[2001:db8::53]:53"),
			netip.MustParseAddrPort("127.0.0.53:5353"),
		},
		Mark:         mark,
		DeniedTarget: netfilter.Reject,
	}
}

func open(t *testing.T, cfg netfilter.Config) *netfilter.Netfilter {
	t.Helper()
	n, err := netfilter.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func ensure(t *testing.T, n *netfilter.Netfilter) []string {
	t.Helper()
	mended, err := n.Ensure(t.Context(), func([]string) {})
	if err != nil {
		t.Fatal(err)
	}
	return mended
}

func eachBackend(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range []string{netfilter.NFT, netfilter.Legacy} {
		t.Run(backend, func(t *testing.T) { test(t, backend) })
	}
}

func TestEnsureIsIdempotent(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		cfg := config(backend, pinPrograms(t, netfiltertest.EnterNode(t), "1"))
		n := open(t, cfg)
		if mended := ensure(t, n); len(mended) == 0 {
			t.Error("first Ensure mended nothing")
		}
		before := rules(t, backend)
		if mended := ensure(t, n); len(mended) > 0 {
			t.Errorf("second Ensure mended %q, want nothing", mended)
		}
		// What the next process writes for the same configuration is what iptables prints.
		if mended := ensure(t, open(t, cfg)); len(mended) > 0 {
			t.Errorf("Ensure of another process mended %q, want nothing", mended)
		}
		if diff := cmp.Diff(before, rules(t, backend)); diff != "" {
			t.Errorf("rules changed: %s", diff)
		}
	})
}

func TestEnsureMends(t *testing.T) {
	faults := []struct {
		name     string
		commands []string // behind iptables
		want     []string
	}{
		{"table flushed", []string{"-t mangle -F"}, []string{"jump from PREROUTING was missing", "content of chain NAMEWARD-PREROUTING was missing"}},
		{"chain flushed", []string{"-t filter -F NAMEWARD-FORWARD"}, []string{"filter: content of chain NAMEWARD-FORWARD was missing"}},
		{"jump deleted", []string{"-t mangle -D OUTPUT 1"}, []string{"mangle: jump from OUTPUT was missing"}},
		{"rule deleted", []string{"-t mangle -D NAMEWARD-OUTPUT 2"}, []string{"mangle: chain NAMEWARD-OUTPUT was changed"}},
		{"rule in front", []string{"-t mangle -I PREROUTING -j ACCEPT"}, []string{"mangle: jump from PREROUTING was not the first rule"}},
		{"jump doubled", []string{"-t filter -A FORWARD -j NAMEWARD-FORWARD"}, []string{"filter: jump from FORWARD was not the first"}},
		{
			"chains deleted",
			[]string{"-t filter -F", "-t filter -X"},
			[]string{"chain NAMEWARD-FORWARD was missing", "chain NAMEWARD-OUTPUT was missing"},
		},
		{
			"chain of another release",
			[]string{"-t mangle -N NAMEWARD-OLD", "-t mangle -A FORWARD -j NAMEWARD-OLD"},
			[]string{"chain NAMEWARD-OLD was left over"},
		},
	}
	eachBackend(t, func(t *testing.T, backend string) {
		cfg := config(backend, pinPrograms(t, netfiltertest.EnterNode(t), "1"))
		n := open(t, cfg)
		ensure(t, n)
		pristine := rules(t, backend)
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, fault := range faults {
				for _, args := range fault.commands {
					command(t, family+"-"+backend, strings.Fields(args)...)
				}
				mended := strings.Join(ensure(t, n), "; ")
				for _, want := range fault.want {
					if !strings.Contains(mended, want) || !strings.Contains(mended, family+" ") {
						t.Errorf("%s, %s: mended %q, want %q", family, fault.name, mended, want)
					}
				}
				if again := ensure(t, n); len(again) > 0 {
					t.Errorf("%s, %s: Ensure mended once more: %q", family, fault.name, again)
				}
				if fault.name == "rule in front" {
					command(t, family+"-"+backend, "-t", "mangle", "-D", "PREROUTING", "-j", "ACCEPT")
				}
				if diff := cmp.Diff(pristine, rules(t, backend)); diff != "" {
					t.Errorf("%s, %s: rules are not as before: %s", family, fault.name, diff)
				}
			}
		}
	})
}

func TestForeignRulesStay(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		cfg := config(backend, pinPrograms(t, netfiltertest.EnterNode(t), "1"))
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, args := range []string{
				"-t filter -N FOREIGN", "-t filter -A FOREIGN -j RETURN", "-t filter -A FORWARD -j FOREIGN",
				"-t mangle -A PREROUTING -p tcp --dport 80 -j MARK --set-xmark 0x1/0x1", "-t nat -A POSTROUTING -j MASQUERADE",
			} {
				command(t, family+"-"+backend, strings.Fields(args)...)
			}
		}
		before := rules(t, backend)
		n := open(t, cfg)
		ensure(t, n)
		command(t, "iptables-"+backend, "-t", "mangle", "-F", "NAMEWARD-INPUT")
		ensure(t, n)
		removed, err := netfilter.Remove(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(removed) == 0 {
			t.Error("Remove names nothing")
		}
		if diff := cmp.Diff(before, rules(t, backend)); diff != "" {
			t.Errorf("rules are not as before Ensure: %s", diff)
		}
		if removed, err := netfilter.Remove(t.Context()); err != nil || len(removed) > 0 {
			t.Errorf("second Remove: %q, %v, want nothing", removed, err)
		}
	})
}

func TestNewProgramsReplaceOldOnes(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		bpfDir := netfiltertest.EnterNode(t)
		old := pinPrograms(t, bpfDir, "1")
		ensure(t, open(t, config(backend, old)))
		ensure(t, open(t, config(backend, pinPrograms(t, bpfDir, "2"))))
		if text := rules(t, backend); strings.Contains(text, old.EgressLocal) || !strings.Contains(text, "egress_local-2") {
			t.Errorf("rules do not name the new programs alone:\n%s", text)
		}
		removePins(t, old)
		// legacy opens every pin that the table names at each write.
		command(t, "iptables-"+backend, "-t", "mangle", "-A", "FORWARD", "-j", "RETURN")
	})
}

func TestEnsureFailsWithoutPins(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		programs := pinPrograms(t, netfiltertest.EnterNode(t), "1")
		removePins(t, programs)
		if _, err := open(t, config(backend, programs)).Ensure(t.Context(), func([]string) {}); err == nil {
			t.Error("Ensure succeeded with pins that do not exist")
		}
		if text := rules(t, backend); strings.Contains(text, "NAMEWARD") {
			t.Errorf("half of a transaction is in force:\n%s", text)
		}
	})
}

func TestRulesOfTheOtherBackendGo(t *testing.T) {
	programs := pinPrograms(t, netfiltertest.EnterNode(t), "1")
	ensure(t, open(t, config(netfilter.Legacy, programs)))
	ensure(t, open(t, config(netfilter.NFT, programs)))
	if text := rules(t, netfilter.Legacy); strings.Contains(text, "NAMEWARD") {
		t.Errorf("legacy still holds:\n%s", text)
	}
	if text := rules(t, netfilter.NFT); !strings.Contains(text, "NAMEWARD-PREROUTING") {
		t.Errorf("nft holds nothing:\n%s", text)
	}
}

func TestAutoFollowsTheNodesRules(t *testing.T) {
	choose := func(t *testing.T, want string) {
		t.Helper()
		if got := open(t, netfilter.Config{Backend: netfilter.Auto}).Backend(); got != want {
			t.Errorf("backend: got %s, want %s", got, want)
		}
	}
	t.Run("no rules", func(t *testing.T) {
		netfiltertest.EnterNode(t)
		choose(t, netfilter.NFT)
	})
	t.Run("legacy rules", func(t *testing.T) {
		netfiltertest.EnterNode(t)
		command(t, "iptables-legacy", "-A", "INPUT", "-j", "ACCEPT")
		choose(t, netfilter.Legacy)
	})
	t.Run("rules of both", func(t *testing.T) {
		netfiltertest.EnterNode(t)
		command(t, "iptables-legacy", "-A", "INPUT", "-j", "ACCEPT")
		command(t, "ip6tables-nft", "-A", "INPUT", "-j", "ACCEPT")
		choose(t, netfilter.NFT)
	})
	t.Run("only our own in legacy", func(t *testing.T) {
		ensure(t, open(t, config(netfilter.Legacy, pinPrograms(t, netfiltertest.EnterNode(t), "1"))))
		choose(t, netfilter.NFT)
	})
}

// hooksSubject breaks what stands by taking a jump away.
type hooksSubject struct {
	*netfilter.Netfilter
	t *testing.T
}

func (s hooksSubject) Break() {
	command(s.t, "ip6tables-"+s.Backend(), "-t", "mangle", "-D", "PREROUTING", "1")
}

func (s hooksSubject) Stand() bool {
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, table := range []string{"mangle", "filter"} {
			if !strings.Contains(command(s.t, family+"-"+s.Backend()+"-save", "-t", table), "-A OUTPUT") {
				return false
			}
		}
	}
	return strings.Contains(command(s.t, "ip6tables-"+s.Backend()+"-save", "-t", "mangle"), "-A PREROUTING")
}

func TestHooks(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		enforcetest.TestHooks(t, func(t *testing.T) enforcetest.HooksSubject {
			return hooksSubject{open(t, config(backend, pinPrograms(t, netfiltertest.EnterNode(t), "1"))), t}
		})
	})
}
