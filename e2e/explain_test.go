package e2e_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// explainer asks server and agent of one node.
type explainer struct {
	*fleet
	server namewardv1.NodeServiceClient
	local  agentv1.LocalServiceClient
}

func newExplainer(f *fleet) *explainer {
	conn, err := f.DialAgent()
	f.must(err)
	f.t.Cleanup(func() { _ = conn.Close() })
	return &explainer{f, namewardv1.NewNodeServiceClient(f.conn), agentv1.NewLocalServiceClient(conn)}
}

// sameTimes lets times be a little apart: a node tells them by its wall clock as it is when it tells.
var sameTimes = protocmp.FilterMessage(&timestamppb.Timestamp{}, cmp.Comparer(func(a, b protocmp.Message) bool {
	timeOf := func(m protocmp.Message) time.Time { return m.Unwrap().(*timestamppb.Timestamp).AsTime() }
	return timeOf(a).Sub(timeOf(b)).Abs() < time.Second
}))

// explain returns what both say, once they agree: what the agent has learned the server hears soon. The
// server alone knows of policies that the node does not have.
func (e *explainer) explain(t *testing.T, request *namewardv1.ExplainConnectionRequest) *namewardv1.ExplainConnectionResponse {
	t.Helper()
	request.Node = "nodes/" + lab.NodeName
	var answer *namewardv1.ExplainConnectionResponse
	err := lab.Await(t.Context(), func() error {
		fromServer, err := e.server.ExplainConnection(t.Context(), request)
		if err != nil {
			return err
		}
		if answer, err = e.local.ExplainConnection(t.Context(), request); err != nil {
			return err
		}
		fromServer.Evaluations = slices.DeleteFunc(fromServer.Evaluations, func(e *namewardv1.RuleEvaluation) bool {
			return e.GetOutcome() == namewardv1.RuleEvaluation_DISABLED || e.GetOutcome() == namewardv1.RuleEvaluation_OTHER_NODE
		})
		if diff := cmp.Diff(answer, fromServer, protocmp.Transform(), sameTimes); diff != "" {
			return fmt.Errorf("-agent +server:\n%s", diff)
		}
		return nil
	}, nil)
	if err != nil {
		t.Errorf("%v: %v", request, err)
	}
	return answer
}

// try makes a connection from a namespace, and says whether it was let through.
func (f *fleet) try(from *lab.Namespace, protocol namewardv1.Protocol, to netip.Addr, port uint16) (bool, error) {
	var err error
	switch protocol {
	case namewardv1.Protocol_UDP:
		err = from.Exchange(to, port)
	case namewardv1.Protocol_ICMP:
		err = from.Ping(to)
	default:
		var conn net.Conn
		if conn, err = from.Dial("tcp", netip.AddrPortFrom(to, port).String(), time.Second); err == nil {
			err = conn.Close()
		}
	}
	if err != nil && !lab.Refused(err) {
		return false, err
	}
	return err == nil, nil
}

// explainedPolicies decide in each way there is.
func explainedPolicies() []*namewardv1.Policy {
	tcp := []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: lab.ServicePort}}
	allow, deny := namewardv1.Rule_ALLOW, namewardv1.Rule_DENY
	client := []*namewardv1.Workload{{Cidrs: []string{lab.ClientV4.String()}}}
	return []*namewardv1.Policy{
		{Name: "policies/a-first", Priority: -5, Workloads: client, Rules: []*namewardv1.Rule{
			{Action: deny, Domains: []string{"tracker.shop.example", "two.shared.example"}},
			{Action: deny, Domains: []string{"d3.shaped.example"}, QueryAction: namewardv1.Rule_REFUSE},
		}},
		{Name: "policies/client", Workloads: client, Rules: []*namewardv1.Rule{
			{Action: allow, Domains: []string{"api.example", "*.shared.example"}, Ports: tcp},
			{Action: allow, Domains: []string{"pool.cdn.example", "*.shop.example"}, Ports: tcp},
			{Action: allow, Cidrs: []string{"198.18.202.0/24"}},
		}},
		{Name: "policies/pings", Priority: 5, Workloads: []*namewardv1.Workload{{Interface: "cli+", Cidrs: client[0].GetCidrs()}}, Rules: []*namewardv1.Rule{
			{Action: allow, Domains: []string{"late.example"}, Ports: []*namewardv1.Port{{Protocol: namewardv1.Protocol_ICMP}}},
		}},
		{Name: "policies/trial", Mode: namewardv1.Policy_AUDIT, Workloads: append(client, &namewardv1.Workload{Host: true}), Rules: []*namewardv1.Rule{
			{Action: allow, Domains: []string{"api.example"}},
		}},
		{Name: "policies/off", Mode: namewardv1.Policy_DISABLED},
		{Name: "policies/elsewhere", NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "db"}}},
	}
}

// TestExplain: what explain says of a connection, on the server and on the agent's socket, the kernel does.
func TestExplain(t *testing.T) {
	f := newFleet(t)
	e := newExplainer(f)
	for _, policy := range explainedPolicies() {
		f.put(policy)
	}
	var listener net.Listener
	f.must(f.Node.Do(func() (err error) {
		listener, err = net.Listen("tcp", ":7000")
		return err
	}))
	defer listener.Close() //nolint:errcheck // nobody is left to hear

	address := map[string]netip.Addr{}
	for _, name := range []string{"api.example", "www.shop.example", "tracker.shop.example", "one.shared.example", "evil.example", "late.example"} {
		address[name] = f.learn(t, lab.ResolverV4, name)
	}
	const tcp, udp, icmp = namewardv1.Protocol_TCP, namewardv1.Protocol_UDP, namewardv1.Protocol_ICMP
	type connection struct {
		fact     string
		workload string
		to       string // a name that was resolved, or an address
		protocol namewardv1.Protocol
		port     uint16
		decider  string // policy and rule, or why none
	}
	check := func(c connection) {
		t.Helper()
		to, ok := address[c.to]
		if !ok {
			to = netip.MustParseAddr(c.to)
		}
		from := f.Client
		request := &namewardv1.ExplainConnectionRequest{Workload: c.workload, Destination: to.String(), Protocol: c.protocol, Port: uint32(c.port)}
		if c.workload == "host" {
			from = f.Node
		} else {
			request.Interface = "client0"
		}
		passed, err := f.try(from, c.protocol, to, c.port)
		if err != nil {
			t.Errorf("%s: %v", c.fact, err)
		}
		answer := e.explain(t, request)
		if said := answer.GetVerdict() == namewardv1.Verdict_ALLOW; said != passed {
			t.Errorf("%s: explained as %v (%s), and the kernel lets it pass: %v", c.fact, answer.GetVerdict(), answer.GetReason(), passed)
		}
		decider := "none"
		switch {
		case answer.GetAlwaysAllowed() != namewardv1.ExplainConnectionResponse_ALWAYS_ALLOWED_UNSPECIFIED:
			decider = answer.GetAlwaysAllowed().String()
		case answer.GetPolicy() != "":
			decider = strings.TrimPrefix(answer.GetPolicy(), "policies/") + " " + strconv.Itoa(int(answer.GetRule()))
		}
		if decider != c.decider {
			t.Errorf("%s: decided by %s (%s), want %s", c.fact, decider, answer.GetReason(), c.decider)
		}
	}
	v4, v6 := lab.ClientV4.String(), lab.ClientV6.String()
	for _, c := range []connection{
		{"allowed by name", v4, "api.example", tcp, lab.ServicePort, "client 0"},
		{"another port", v4, "api.example", tcp, lab.OtherPort, "none"},
		{"another protocol", v4, "api.example", udp, lab.ServicePort, "none"},
		{"allowed by an alias", v4, "www.shop.example", tcp, lab.ServicePort, "client 1"},
		{"denied by a rule before", v4, "tracker.shop.example", tcp, lab.ServicePort, "a-first 0"},
		{"allowed by CIDR, whatever the port", v4, "evil.example", udp, lab.OtherPort, "client 2"},
		{"allowed by CIDR, ICMP", v4, "evil.example", icmp, 0, "client 2"},
		{"ICMP alone", v4, "late.example", icmp, 0, "pings 0"},
		{"ICMP alone, TCP", v4, "late.example", tcp, lab.ServicePort, "none"},
		{"an address without a name", v4, "198.18.210.1", tcp, lab.ServicePort, "none"},
		{"one name of a shared address", v4, "one.shared.example", tcp, lab.ServicePort, "client 0"},
		{"a workload that no policy selects", v6, "2001:db8:18:202::1", tcp, lab.ServicePort, "none"},
		{"audit lets pass what it would deny", "host", "evil.example", tcp, lab.ServicePort, "none"},
		{"a trusted resolver", v4, lab.ResolverV4.String(), tcp, 53, "TRUSTED_RESOLVER"},
		{"an address of the node", v4, lab.NodeV4.String(), tcp, 7000, "NODE_ADDRESS"},
		{"loopback, and the policy server", "host", "127.0.0.1", tcp, 7443, "NODE_ADDRESS"},
	} {
		check(c)
	}
	address["two.shared.example"] = f.learn(t, lab.ResolverV4, "two.shared.example")
	check(connection{"a second name of that address is denied", v4, "one.shared.example", tcp, lab.ServicePort, "a-first 0"})

	t.Run("names", func(t *testing.T) { e.expectNames(t) })
	t.Run("server alone", func(t *testing.T) { e.expectPassedOver(t) })
	t.Run("command line", func(t *testing.T) { e.expectCommandLine(t) })
}

// expectNames: names are explained before they are known, and by each of their addresses afterwards.
func (e *explainer) expectNames(t *testing.T) {
	ask := func(name string) *namewardv1.ExplainConnectionResponse {
		t.Helper()
		return e.explain(t, &namewardv1.ExplainConnectionRequest{
			Workload: lab.ClientV4.String(), Interface: "client0", Destination: name, Port: lab.ServicePort,
		})
	}
	if a := ask(lab.FreshName(1)); a.GetVerdict() != namewardv1.Verdict_DENY || len(a.GetAddresses()) != 0 || !strings.Contains(strings.Join(a.GetNotes(), "\n"), "has not been seen") {
		t.Errorf("a name that nobody asked for: %v", a)
	}
	e.expectRefused(t, lab.ResolverV4, lab.FreshName(1))

	refused := lab.ShapedDomain(3)
	if a := ask(refused); a.GetVerdict() != namewardv1.Verdict_DENY || !a.GetQuestion().GetRefused() || a.GetPolicy() != "policies/a-first" || a.GetRule() != 1 {
		t.Errorf("a name whose question is refused: %v", a)
	}
	expectUnasked(t, e.Client, lab.ResolverV4, refused)

	a := ask("api.example")
	if a.GetVerdict() != namewardv1.Verdict_ALLOW || len(a.GetAddresses()) != 2 || a.GetQuestion().GetRefused() || len(a.GetMappings()) != 2 {
		t.Errorf("a name with two addresses: %v", a)
	}
	a = ask("edge.cdn.example")
	if a.GetVerdict() != namewardv1.Verdict_ALLOW || len(a.GetMappings()) != 1 || a.GetMappings()[0].GetDomain() != "www.shop.example" ||
		!slices.Equal(a.GetMappings()[0].GetChain(), []string{"edge.cdn.example", "pool.cdn.example"}) ||
		a.GetMappings()[0].GetClient() != lab.ClientV4.String() {
		t.Errorf("an alias: %v", a)
	}
}

// expectPassedOver: the server says of policies that the node does not have why that is so.
func (e *explainer) expectPassedOver(t *testing.T) {
	answer, err := e.server.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{
		Node: "nodes/" + lab.NodeName, Destination: "198.18.210.1", Port: lab.ServicePort,
	})
	e.must(err)
	got := map[string]string{}
	for _, evaluation := range answer.GetEvaluations() {
		got[evaluation.GetPolicy()+" "+evaluation.GetOutcome().String()] = evaluation.GetReason()
	}
	if reason := got["policies/elsewhere OTHER_NODE"]; !strings.Contains(reason, "wants role=db, and the node has role=lab") {
		t.Errorf("a policy of other nodes: %v", got)
	}
	if _, ok := got["policies/off DISABLED"]; !ok {
		t.Errorf("a disabled policy is not there: %v", got)
	}
}

// expectCommandLine: the verdict is the exit code.
func (e *explainer) expectCommandLine(t *testing.T) {
	for _, whom := range [][]string{{"--server", lab.ServerAddress, "--insecure", "--node", lab.NodeName}, {"--agent", e.Socket()}} {
		for destination, want := range map[string]int{"api.example": 0, "198.18.210.1": 3, "tracker.shop.example": 3, "a..b": 1} {
			args := append([]string{"explain", "--workload", lab.ClientV4.String(), "--destination", destination, "--port", "443"}, whom...)
			out, err := e.command(t.Context(), e.Program("namewardctl"), args...)
			code := 0
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				code = exit.ExitCode()
			}
			if code != want || want != 1 && !strings.Contains(out, map[int]string{0: "Verdict     ALLOW", 3: "Verdict     DENY"}[want]) {
				t.Errorf("namewardctl %v: exit code %d, want %d\n%s", args, code, want, out)
			}
		}
	}
}

// TestExplainEnded: a name counts until its mapping ends, and explain says until when it did.
func TestExplainEnded(t *testing.T) {
	f := newFleet(t, "--min-ttl", "0s", "--max-ttl", "1s", "--ttl-grace", "0s")
	e := newExplainer(f)
	f.put(clientPolicy("late.example"))
	address := f.learn(t, lab.ResolverV4, "late.example")
	f.must(lab.Await(t.Context(), func() error {
		if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
			return fmt.Errorf("connect: want refused, got %w", err)
		}
		return nil
	}, nil))
	request := &namewardv1.ExplainConnectionRequest{Workload: lab.ClientV4.String(), Destination: address.String(), Port: lab.ServicePort}
	f.must(lab.Await(t.Context(), func() error {
		answer, err := e.local.ExplainConnection(t.Context(), request)
		if err == nil && len(answer.GetEndedMappings()) == 0 {
			err = errors.New("not collected yet")
		}
		return err
	}, nil))
	answer := e.explain(t, request)
	notes := strings.Join(answer.GetNotes(), "\n")
	if answer.GetVerdict() != namewardv1.Verdict_DENY || len(answer.GetMappings()) != 0 || len(answer.GetEndedMappings()) != 1 ||
		!strings.Contains(notes, "when the mapping of late.example to it ended, rule 0 of policies/client decided: ALLOW") {
		t.Errorf("got %v", answer)
	}
}
