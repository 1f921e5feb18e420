package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// refusingPolicy lets the client and the node itself reach every address, but not ask for evil.example.
func refusingPolicy() *namewardv1.Policy {
	policy := clientPolicy()
	policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
	policy.Rules = []*namewardv1.Rule{
		{Action: namewardv1.Rule_ALLOW, Domains: []string{"api.example"}},
		{Action: namewardv1.Rule_DENY, Domains: []string{"evil.example"}, QueryAction: namewardv1.Rule_REFUSE},
		{Action: namewardv1.Rule_ALLOW},
	}
	return policy
}

func expectUnasked(t *testing.T, from *lab.Namespace, resolver netip.Addr, name string) {
	t.Helper()
	// Of a packet that it is sending itself, the kernel says so at once.
	if _, err := from.Resolve(resolver, name); !lab.Refused(err) && !errors.Is(err, syscall.EPERM) {
		t.Errorf("ask %s for %s: got %v, want refused at once", resolver, name, err)
	}
}

func expectResolved(t *testing.T, from *lab.Namespace, resolver netip.Addr, name string) {
	t.Helper()
	if _, err := from.Resolve(resolver, name); err != nil {
		t.Errorf("ask %s for %s: %v", resolver, name, err)
	}
}

// TestRefusedQuestion: the first rule that matches the asked name decides whether it is asked, whatever
// happens to denied connections; nobody waits for the answer.
func TestRefusedQuestion(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend, "--denied-target", "DROP")
		f.put(refusingPolicy())
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			for _, from := range []*lab.Namespace{f.Client, f.Node} {
				expectUnasked(t, from, resolver, "evil.example")
				expectUnasked(t, from, resolver, "EVIL.example")
				expectResolved(t, from, resolver, "api.example")
				expectResolved(t, from, resolver, "www.shop.example")
			}
		})
		// A connection of the socket is known when the refused question comes: that one alone is stopped.
		errs, err := f.Client.AskInTurn(lab.ResolverV4, "api.example", "evil.example", "api.example")
		f.must(err)
		if refused := []bool{lab.Refused(errs[0]), lab.Refused(errs[1]), lab.Refused(errs[2])}; !slices.Equal(refused, []bool{false, true, false}) {
			t.Errorf("asked in turn: %v", errs)
		}
	})
}

// TestRefusedQuestionByOrder: rules are asked in order; one with only CIDRs matches no name, one without
// a destination every name; ports do not count.
func TestRefusedQuestionByOrder(t *testing.T) {
	f := newFleet(t)
	policy := refusingPolicy()
	everything := &namewardv1.Rule{
		Action: namewardv1.Rule_ALLOW, QueryAction: namewardv1.Rule_REFUSE,
		Ports: []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: lab.ServicePort}},
	}
	policy.Rules = append([]*namewardv1.Rule{
		{Action: namewardv1.Rule_DENY, Cidrs: []string{"198.18.0.0/15"}, QueryAction: namewardv1.Rule_REFUSE},
		{Action: namewardv1.Rule_DENY, Domains: []string{"*.shop.example"}},
	}, append(policy.Rules[:1:1], everything)...)
	f.put(policy)
	for name, asked := range map[string]bool{"api.example": true, "www.shop.example": true, "evil.example": false} {
		if asked {
			expectResolved(t, f.Client, lab.ResolverV4, name)
		} else {
			expectUnasked(t, f.Client, lab.ResolverV4, name)
		}
	}
	other := clientPolicy("evil.example")
	other.Name, other.Priority = "policies/other", -1
	f.put(other)
	expectResolved(t, f.Client, lab.ResolverV4, "evil.example")
	expectUnasked(t, f.Client, lab.ResolverV4, "late.example")
}

// TestRefusedQuestionUnderAudit: it is only reported.
func TestRefusedQuestionUnderAudit(t *testing.T) {
	f := newFleet(t)
	policy := refusingPolicy()
	f.put(policy)
	expectUnasked(t, f.Client, lab.ResolverV4, "evil.example")
	policy.Mode = namewardv1.Policy_AUDIT
	f.put(policy)
	expectResolved(t, f.Client, lab.ResolverV4, "evil.example")
	f.counters(func(c map[string]uint64) bool { return c["dns_queries_audited"] == 1 && c["dns_queries_refused"] == 1 })
	policy.Mode = namewardv1.Policy_DISABLED
	f.put(policy)
	expectResolved(t, f.Client, lab.ResolverV4, "evil.example")
}

// TestRefusedQuestionsAreTold: a question that is refused, and one that a policy in mode AUDIT would refuse,
// is told like a denied connection, with the name in place of those of the destination: by the server, by
// the agent and by namewardctl.
func TestRefusedQuestionsAreTold(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		f.put(refusingPolicy())
		trial := clientPolicy()
		trial.Name, trial.Mode = "policies/trial", namewardv1.Policy_AUDIT
		trial.Rules = []*namewardv1.Rule{{Action: namewardv1.Rule_DENY, Domains: []string{"*.shop.example", "evil.example"}, QueryAction: namewardv1.Rule_REFUSE}, {Action: namewardv1.Rule_ALLOW}}
		f.put(trial)
		var want []string
		for _, resolver := range f.Resolvers() {
			client := lab.ClientV4
			if resolver.Is6() {
				client = lab.ClientV6
			}
			for _, name := range []string{"evil.example", "EVIL.example"} {
				expectUnasked(t, f.Client, resolver, name)
			}
			expectUnasked(t, f.Node, resolver, "evil.example")
			expectResolved(t, f.Client, resolver, "www.shop.example")
			expectResolved(t, f.Client, resolver, "api.example")
			want = append(want,
				fmt.Sprintf("2× DENY ENFORCE %s → %s 53/UDP []: evil.example? policies/client 1", client, resolver),
				fmt.Sprintf("2× DENY AUDIT %s → %s 53/UDP []: evil.example? policies/trial 0", client, resolver),
				fmt.Sprintf("1× DENY ENFORCE uid:0 → %s 53/UDP []: evil.example? policies/client 1", resolver),
				fmt.Sprintf("1× DENY AUDIT %s → %s 53/UDP []: www.shop.example? policies/trial 0", client, resolver))
		}
		f.awaitFlows(t, nil, want...)
		f.awaitFlows(t, &namewardv1.FlowEventFilter{Domain: "*.shop.example"}, slices.DeleteFunc(slices.Clone(want), func(s string) bool { return !strings.Contains(s, "shop") })...)
		f.awaitFlows(t, &namewardv1.FlowEventFilter{Domain: "*.example", Mode: namewardv1.Policy_ENFORCE, Workload: "uid:0"}, slices.DeleteFunc(slices.Clone(want), func(s string) bool { return !strings.Contains(s, "uid") })...)
		f.counters(func(c map[string]uint64) bool {
			return c["flow_events_told"] == 8 && c["dns_queries_refused"] == 6 && c["dns_queries_audited"] == 2
		})

		socket, err := f.DialAgent()
		f.must(err)
		defer socket.Close() //nolint:errcheck // the test is over
		local, err := agentv1.NewLocalServiceClient(socket).ListFlowEvents(t.Context(), &namewardv1.ListFlowEventsRequest{})
		if err != nil || !slices.Equal(tellAll(local.GetFlowEvents()), slices.Sorted(slices.Values(want))) {
			t.Errorf("on the socket: got\n%s\n%v", strings.Join(tellAll(local.GetFlowEvents()), "\n"), err)
		}
		out, err := f.command(t.Context(), f.Program("namewardctl"), "get", "flows", "--insecure", "--server", lab.ServerAddress)
		if err != nil || strings.Count(out, "question evil.example") != 6 || strings.Count(out, "question www.shop.example") != 2 {
			t.Errorf("namewardctl: got\n%s\n%v", out, err)
		}
	})
}

// TestRefusedQuestionToTheNode: a resolver on the node itself and one behind DNAT are refused alike.
func TestRefusedQuestionToTheNode(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		loopback, service := netip.MustParseAddr("127.0.0.53"), netip.MustParseAddr("10.96.0.10")
		f := newFleet(t, "--iptables", backend, "--trusted-resolver", loopback.String(), "--trusted-resolver", lab.NodeV4.String(), "--trusted-resolver", service.String())
		f.must(f.StartForwarder(t.Context(), loopback, lab.NodeV4))
		f.iptables(t, "iptables-"+backend, "-t nat -A PREROUTING -p udp --dport 53 -d "+service.String()+" -j DNAT --to-destination "+lab.RogueV4.String())
		f.put(refusingPolicy())
		for _, ask := range []struct {
			from     *lab.Namespace
			resolver netip.Addr
		}{{f.Client, lab.NodeV4}, {f.Client, service}, {f.Node, loopback}, {f.Node, lab.NodeV4}} {
			expectUnasked(t, ask.from, ask.resolver, "evil.example")
			expectResolved(t, ask.from, ask.resolver, "api.example")
		}
	})
}

// waitingStreams is how many streams may wait for the rest of a message (bpf/types.h, STREAM_BUFFERS).
const waitingStreams = 64

// TestRefusedQuestionThatCannotBeRead: a last rule that refuses every question refuses what asks in a way that the node
// cannot read too: it would get any question past the rules.
func TestRefusedQuestionThatCannotBeRead(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		flags := []string{"--iptables", backend, "--trusted-resolver", lab.ResolverV4.String(), "--trusted-resolver", lab.ResolverV6.String()}
		for _, address := range scriptedResolvers {
			flags = append(flags, "--trusted-resolver", address.String())
		}
		f := newFleet(t, flags...)
		policy := clientPolicy("api.example")
		policy.Rules = append(policy.Rules, &namewardv1.Rule{Action: namewardv1.Rule_DENY, QueryAction: namewardv1.Rule_REFUSE})
		f.put(policy)
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			expectResolved(t, f.Client, resolver, "api.example")
			expectUnasked(t, f.Client, resolver, "evil.example")
			t.Run("two questions in one message", func(t *testing.T) {
				message := new(dns.Msg).SetQuestion("evil.example.", dns.TypeA)
				message.Question = append(message.Question, message.Question[0])
				wire, err := message.Pack()
				f.must(err)
				conn, err := f.Client.Dial("udp", netip.AddrPortFrom(resolver, 53).String(), lab.Patience)
				f.must(err)
				defer conn.Close() //nolint:errcheck // heard already
				f.must(conn.SetDeadline(time.Now().Add(lab.Patience)))
				_, err = conn.Write(wire)
				f.must(err)
				if size, err := conn.Read(make([]byte, 1500)); !lab.Refused(err) {
					t.Errorf("got %d bytes, %v; want refused", size, err)
				}
			})
			t.Run("over more connections than can be followed", func(t *testing.T) {
				// One that waits as long as it takes.
				patient := scriptedResolvers[0]
				if resolver.Is6() {
					patient = scriptedResolvers[1]
				}
				listener, err := f.ListenDNS(t.Context(), patient)
				f.must(err)
				question := lab.Framed(f.addressesOf("evil.example", 1, resolver))
				var first, server lab.Stream
				for i := range waitingStreams + 1 {
					client, heard := f.hearStream(listener, patient)
					_, err := client.Write(question[:1])
					f.must(err)
					_, err = heard.HearBytes(1)
					f.must(err)
					if i == 0 {
						first, server = client, heard
					}
				}
				_, err = first.Write(question[1:])
				f.must(err)
				f.must(first.SetReadDeadline(time.Now().Add(10 * time.Second))) // nobody answers
				if _, err := first.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
					t.Errorf("got %v, want a reset", err)
				}
				f.must(server.SetReadDeadline(time.Now()))
				if size, err := server.Read(make([]byte, len(question))); size > 0 {
					t.Errorf("the resolver heard %d more bytes, %v", size, err)
				}
				f.counters(func(c map[string]uint64) bool { return c["dns_queries_unfollowed"] > 0 })
				expectResolved(t, f.Client, resolver, "api.example")
			})
		})
	})
}
