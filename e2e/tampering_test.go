package e2e_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// tampering is what somebody does to the node's rules, of both families.
type tampering struct {
	fact string
	do   func(t *testing.T, f *fleet, backend string)
}

// changing tampers with commands of iptables.
func changing(changes ...string) func(*testing.T, *fleet, string) {
	return func(t *testing.T, f *fleet, backend string) { f.bothFamilies(t, backend, changes...) }
}

// emptying restores a dump of empty tables: no chain but those of hooks is left.
func emptying(tables ...string) func(*testing.T, *fleet, string) {
	return func(t *testing.T, f *fleet, backend string) {
		f.restoreRules(t, backend, "*"+strings.Join(tables, "\nCOMMIT\n*")+"\nCOMMIT\n")
	}
}

// docker does what the daemon does at its start, at the beginning of chains where it does so.
var docker = changing(
	"-t nat -N DOCKER", "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER", "-t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER",
	"-t filter -N DOCKER", "-t filter -N DOCKER-USER", "-t filter -N DOCKER-ISOLATION-STAGE-1",
	"-t filter -A DOCKER-ISOLATION-STAGE-1 -j RETURN", "-t filter -A DOCKER-USER -j RETURN",
	"-t filter -I FORWARD -o docker0 -j DOCKER", "-t filter -I FORWARD -i docker0 ! -o docker0 -j ACCEPT",
	"-t filter -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
	"-t filter -I FORWARD -j DOCKER-ISOLATION-STAGE-1", "-t filter -I FORWARD -j DOCKER-USER",
)

// kubeRules is what kube-proxy writes at each of its rounds. What it marks it would accept.
const kubeRules = `*mangle
:KUBE-PROXY-CANARY - [0:0]
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-A KUBE-SERVICES -p tcp -m tcp --dport 443 -j KUBE-MARK-MASQ
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-SERVICES - [0:0]
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment "kubernetes forwarding rules" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
`

func kubeProxy(t *testing.T, f *fleet, backend string) {
	t.Helper()
	for round := range 3 {
		f.restoreRules(t, backend, kubeRules, "--noflush", "--counters")
		if round == 0 {
			f.bothFamilies(t, backend,
				"-t nat -I PREROUTING -j KUBE-SERVICES", "-t nat -I OUTPUT -j KUBE-SERVICES", "-t nat -I POSTROUTING -j KUBE-POSTROUTING",
				"-t filter -I FORWARD -j KUBE-FORWARD", "-t filter -I FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
				"-t filter -I OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES", "-t filter -I INPUT -j KUBE-FIREWALL", "-t filter -I OUTPUT -j KUBE-FIREWALL")
		}
	}
}

// reversing writes a chain of ours again, with its rules in the opposite order.
func reversing(chain string) func(*testing.T, *fleet, string) {
	return func(t *testing.T, f *fleet, backend string) {
		t.Helper()
		for _, program := range []string{"iptables-" + backend, "ip6tables-" + backend} {
			out, err := f.Node.Command(t.Context(), program+"-save", "-t", "mangle").Output()
			f.must(err)
			var rules []string
			for line := range strings.Lines(string(out)) {
				if strings.HasPrefix(line, "-A "+chain+" ") {
					rules = append(rules, line)
				}
			}
			slices.Reverse(rules)
			f.restoreRulesOf(t, program, fmt.Sprintf("*mangle\n:%s - [0:0]\n%sCOMMIT\n", chain, strings.Join(rules, "")), "--noflush")
		}
	}
}

// TestTampering: whatever others do to our rules, and whatever they put before them, is mended, counted and told
// upstream; policies hold; and what is theirs stays as they wrote it.
func TestTampering(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newServer(t, newLab(t), "--iptables", backend)
		f.bothFamilies(t, backend, "-t filter -A INPUT -p tcp --dport 22 -j ACCEPT", "-t mangle -A FORWARD -p udp -j RETURN")
		dumps := map[string]string{}
		for _, program := range []string{"iptables-" + backend, "ip6tables-" + backend} {
			out, err := f.Node.Command(t.Context(), program+"-save").Output()
			f.must(err)
			dumps[program] = string(out)
		}
		f.startAgent()
		f.put(clientPolicy("api.example"))
		rules, _ := f.savedRules(t, backend)

		mended := uint64(0)
		for _, c := range []tampering{
			{"chains are emptied", changing("-t mangle -F NAMEWARD-PREROUTING", "-t filter -F NAMEWARD-DENIED")},
			{"jumps are deleted", changing("-t mangle -D POSTROUTING 1", "-t filter -D FORWARD 1")},
			{"a jump is moved behind what accepts", changing("-t mangle -D PREROUTING 1", "-t mangle -A PREROUTING -j ACCEPT", "-t mangle -A PREROUTING -j NAMEWARD-PREROUTING")},
			{"rules are reordered", reversing("NAMEWARD-PREROUTING")},
			{"something that accepts is put before", changing("-t mangle -I PREROUTING -j ACCEPT", "-t filter -I FORWARD -j ACCEPT")},
			{"an old dump is restored", func(t *testing.T, f *fleet, _ string) {
				for program, dump := range dumps {
					f.restoreRulesOf(t, program, dump)
				}
			}},
			{"docker", docker},
			{"kube-proxy", kubeProxy},
			{"tables are emptied and chains deleted", emptying("mangle", "filter")},
		} {
			t.Run(c.fact, func(t *testing.T) {
				c.do(t, f, backend)
				_, theirs := f.savedRules(t, backend)
				before := mended
				mended = f.counters(func(c map[string]uint64) bool { return c["mended_rules"] > before })["mended_rules"]
				f.awaitRules(t, backend, rules)
				if _, after := f.savedRules(t, backend); after != theirs {
					t.Errorf("rules of others changed: %s", cmp.Diff(theirs, after))
				}
				f.expectPolicies(t)
			})
		}
		f.countersUpstream(func(c map[string]uint64) bool { return c["mended_rules"] >= mended })
	})
}

// awaitRules waits until the rules of ours in a backend are these.
func (f *fleet) awaitRules(t *testing.T, backend, want string) {
	t.Helper()
	if err := lab.Await(t.Context(), func() error {
		if got, _ := f.savedRules(t, backend); got != want {
			return fmt.Errorf("rules of %s (-want +got):\n%s", backend, cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
		}
		return nil
	}, nil); err != nil {
		t.Fatal(err)
	}
}

// TestBackendSwitch: the node's rules are moved from one backend of iptables to the other, all of them as the
// manual says, and the old tables are emptied. The agent goes on in its own backend, without copies in the other, and
// follows when it starts anew. The rules of others are not touched.
func TestBackendSwitch(t *testing.T) {
	f := newServer(t, newLab(t), "--iptables", "auto")
	docker(t, f, "nft")
	f.startAgent()
	f.put(clientPolicy("api.example"))
	backend := "nft"
	for _, to := range []string{"legacy", "nft"} {
		t.Run("to "+to, func(t *testing.T) {
			rules, _ := f.savedRules(t, backend)
			mended := f.counters(func(map[string]uint64) bool { return true })["mended_rules"]
			f.moveRules(t, backend, to)
			_, theirs := f.savedRules(t, to)
			f.counters(func(c map[string]uint64) bool { return c["mended_rules"] > mended })
			f.awaitRules(t, backend, rules)
			f.awaitRules(t, to, "")
			f.expectPolicies(t)

			f.must(f.agent.Stop())
			f.startAgent()
			f.awaitRules(t, backend, "")
			f.awaitRules(t, to, strings.ReplaceAll(rules, "-"+backend+" ", "-"+to+" "))
			if _, after := f.savedRules(t, to); after != theirs {
				t.Errorf("rules of others changed: %s", cmp.Diff(theirs, after))
			}
			f.expectPolicies(t)
			if node := f.nodeUpstream(t); node.GetStatus().GetIptablesBackend() != to {
				t.Errorf("backend upstream: got %s, want %s", node.GetStatus().GetIptablesBackend(), to)
			}
			backend = to
		})
	}
}

// moveRules copies all rules, and empties the tables that they came from.
func (f *fleet) moveRules(t *testing.T, from, to string) {
	t.Helper()
	for _, family := range []string{"iptables-", "ip6tables-"} {
		out, err := f.Node.Command(t.Context(), family+from+"-save").Output()
		f.must(err)
		f.restoreRulesOf(t, family+to, string(out))
	}
	emptying("nat", "mangle", "filter")(t, f, from)
}

func (f *fleet) expectPolicies(t *testing.T) {
	t.Helper()
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "api.example")
		f.expectRefused(t, resolver, "evil.example")
	})
}

func (f *fleet) nodeUpstream(t *testing.T) *namewardv1.Node {
	t.Helper()
	node, err := namewardv1.NewNodeServiceClient(f.conn).GetNode(t.Context(), &namewardv1.GetNodeRequest{Name: "nodes/" + lab.NodeName})
	f.must(err)
	return node
}

// TestOpenedWhileRulesWereGone: nobody judged what was opened then, so it is judged once rules stand again.
func TestOpenedWhileRulesWereGone(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		for name, command := range map[string]string{"jump deleted": "-t mangle -D PREROUTING 1", "chain flushed": "-t mangle -F NAMEWARD-PREROUTING"} {
			t.Run(name, func(t *testing.T) { openWhileRulesAreGone(t, backend, command) })
		}
	})
}

func openWhileRulesAreGone(t *testing.T, backend, command string) {
	f := newFleet(t, "--iptables", backend)
	f.put(clientPolicy("api.example"))
	var evil, api []netip.Addr
	for _, resolver := range []netip.Addr{lab.ResolverV4, lab.ResolverV6} {
		evil = append(evil, f.learn(t, resolver, "evil.example"))
		api = append(api, f.learn(t, resolver, "api.example"))
	}
	f.must(f.agent.Kill())
	f.bothFamilies(t, backend, command)
	var denied, allowed []*held
	for i := range evil {
		denied = append(denied, f.hold(t, f.Client, "tcp", evil[i], lab.ServicePort))
		allowed = append(allowed, f.hold(t, f.Client, "tcp", api[i], lab.ServicePort))
	}
	f.startAgent()
	f.awaitCut(t, uint64(len(denied)), 0)
	expectCut(t, denied...)
	expectAlive(t, allowed...)
}
