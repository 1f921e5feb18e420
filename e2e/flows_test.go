package e2e_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// tell says of a flow event what these tests are about.
func tell(e *namewardv1.FlowEvent) string {
	who := e.GetWorkload().GetAddress()
	if e.GetWorkload().GetHost() {
		who = fmt.Sprintf("uid:%d", e.GetWorkload().GetUid())
	}
	why := e.GetReason().String()
	if e.GetPolicy() != "" {
		why = fmt.Sprintf("%s %d", e.GetPolicy(), e.GetRule())
	}
	if e.GetQuestion() != "" {
		why = e.GetQuestion() + "? " + why
	}
	return fmt.Sprintf("%d× %v %v %s → %s %d/%v %v: %s", e.GetCount(), e.GetVerdict(), e.GetMode(), who, e.GetDestination().GetAddress(),
		e.GetDestination().GetPort(), e.GetDestination().GetProtocol(), e.GetDomains(), why)
}

func tellAll(events []*namewardv1.FlowEvent) []string {
	var texts []string
	for _, e := range events {
		texts = append(texts, tell(e))
	}
	slices.Sort(texts)
	return texts
}

func (f *fleet) flowEvents(filter *namewardv1.FlowEventFilter) ([]*namewardv1.FlowEvent, error) {
	response, err := namewardv1.NewObservationServiceClient(f.conn).ListFlowEvents(f.t.Context(), &namewardv1.ListFlowEventsRequest{Filter: filter})
	return response.GetFlowEvents(), err
}

// awaitFlows waits until the server tells of these, and of no others.
func (f *fleet) awaitFlows(t *testing.T, filter *namewardv1.FlowEventFilter, want ...string) {
	t.Helper()
	slices.Sort(want)
	if err := lab.Await(t.Context(), func() error {
		events, err := f.flowEvents(filter)
		if got := tellAll(events); err != nil || !slices.Equal(got, want) {
			return fmt.Errorf("flow events: got\n%s\n%w, want\n%s", strings.Join(got, "\n"), err, strings.Join(want, "\n"))
		}
		return nil
	}, nil); err != nil {
		t.Error(err)
	}
}

// connects opens connections, of which the verdict is known.
func (f *fleet) connects(t *testing.T, from *lab.Namespace, address netip.Addr, times int, refused bool) {
	t.Helper()
	for range times {
		if err := from.Connect(address, lab.ServicePort); lab.Refused(err) != refused || !refused && err != nil {
			t.Errorf("connect to %s: got %v, want refused: %v", address, err, refused)
		}
	}
}

// TestFlowEvents: a connection that is denied, and one that a policy in mode AUDIT would deny, is told with
// who, where to, under which names, by which rule and how often: by the server, by the agent and by
// namewardctl.
func TestFlowEvents(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		policy := clientPolicy("api.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
		policy.Rules = append(policy.Rules, &namewardv1.Rule{Action: namewardv1.Rule_DENY, Domains: []string{"*.shop.example"}})
		f.put(policy)
		trial := clientPolicy("api.example")
		trial.Name, trial.Mode, trial.Rules[0].Action = "policies/trial", namewardv1.Policy_AUDIT, namewardv1.Rule_DENY
		trial.Rules = append(trial.Rules, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW})
		f.put(trial)
		var want []string
		for _, resolver := range f.Resolvers() {
			client := lab.ClientV4
			if resolver.Is6() {
				client = lab.ClientV6
			}
			evil, shop, api := f.learn(t, resolver, "evil.example"), f.learn(t, resolver, "www.shop.example"), f.learn(t, resolver, "api.example")
			f.connects(t, f.Client, evil, 3, true)
			f.connects(t, f.Client, shop, 1, true)
			f.connects(t, f.Client, api, 2, false)
			f.connects(t, f.Node, evil, 2, true)
			want = append(want,
				fmt.Sprintf("3× DENY ENFORCE %s → %s %d/TCP [evil.example]: NO_RULE", client, evil, lab.ServicePort),
				fmt.Sprintf("1× DENY ENFORCE %s → %s %d/TCP [www.shop.example]: policies/client 1", client, shop, lab.ServicePort),
				fmt.Sprintf("2× DENY AUDIT %s → %s %d/TCP [api.example]: policies/trial 0", client, api, lab.ServicePort),
				fmt.Sprintf("2× DENY ENFORCE uid:0 → %s %d/TCP [evil.example]: NO_RULE", evil, lab.ServicePort))
		}
		f.awaitFlows(t, nil, want...)
		f.awaitFlows(t, &namewardv1.FlowEventFilter{Mode: namewardv1.Policy_AUDIT}, slices.DeleteFunc(slices.Clone(want), func(s string) bool { return !strings.Contains(s, "AUDIT") })...)
		f.awaitFlows(t, &namewardv1.FlowEventFilter{Workload: "uid:0", Domain: "evil.example"}, slices.DeleteFunc(slices.Clone(want), func(s string) bool { return !strings.Contains(s, "uid") })...)
		f.awaitFlows(t, &namewardv1.FlowEventFilter{Domain: "*.shop.example", Policy: "policies/trial"})

		socket, err := f.DialAgent()
		f.must(err)
		defer socket.Close() //nolint:errcheck // the test is over
		local, err := agentv1.NewLocalServiceClient(socket).ListFlowEvents(t.Context(), &namewardv1.ListFlowEventsRequest{})
		if err != nil || !slices.Equal(tellAll(local.GetFlowEvents()), want) {
			t.Errorf("on the socket: got\n%s\n%v", strings.Join(tellAll(local.GetFlowEvents()), "\n"), err)
		}
		out, err := f.Node.Command(t.Context(), f.Program("namewardctl"), "get", "flows", "-o", "json", "--insecure", "--server", lab.ServerAddress).Output()
		var printed namewardv1.ListFlowEventsResponse
		if err != nil || protojson.Unmarshal(out, &printed) != nil || !slices.Equal(tellAll(printed.GetFlowEvents()), want) {
			t.Errorf("namewardctl: got\n%s\n%v", out, err)
		}
	})
}

// TestWatchFlowEvents: who watches is told at once, by the server and by the agent alone.
func TestWatchFlowEvents(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("api.example"))
	evil := f.learn(t, lab.ResolverV4, "evil.example")
	watch, err := namewardv1.NewObservationServiceClient(f.conn).WatchFlowEvents(t.Context(), &namewardv1.WatchFlowEventsRequest{})
	f.must(err)
	socket, err := f.DialAgent()
	f.must(err)
	defer socket.Close() //nolint:errcheck // the test is over
	local, err := agentv1.NewLocalServiceClient(socket).WatchEvents(t.Context(), &agentv1.WatchEventsRequest{
		Kinds: []agentv1.WatchEventsRequest_Kind{agentv1.WatchEventsRequest_FLOW_EVENT},
	})
	f.must(err)
	if first, err := watch.Recv(); err != nil || !first.GetSynced() {
		t.Fatalf("first of the server: %v, %v, want synced", first, err)
	}
	if first, err := local.Recv(); err != nil || !first.GetSynced() {
		t.Fatalf("first of the agent: %v, %v, want synced", first, err)
	}
	for count := 1; count <= 2; count++ {
		f.connects(t, f.Client, evil, 1, true)
		want := fmt.Sprintf("%d× DENY ENFORCE %s → %s %d/TCP [evil.example]: NO_RULE", count, lab.ClientV4, evil, lab.ServicePort)
		if got, err := watch.Recv(); err != nil || tell(got.GetFlowEvent()) != want {
			t.Errorf("the server: got %v, %v, want %s", got, err, want)
		}
		if got, err := local.Recv(); err != nil || tell(got.GetFlowEvent()) != want {
			t.Errorf("the agent: got %v, %v, want %s", got, err, want)
		}
	}
}

// TestFlowEventsCountOnce: whoever is away and comes back, no connection is counted twice, and none is
// forgotten by both.
func TestFlowEventsCountOnce(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("api.example"))
	evil := f.learn(t, lab.ResolverV4, "evil.example")
	want := func(count int) string {
		return fmt.Sprintf("%d× DENY ENFORCE %s → %s %d/TCP [evil.example]: NO_RULE", count, lab.ClientV4, evil, lab.ServicePort)
	}
	f.connects(t, f.Client, evil, 3, true)
	f.awaitFlows(t, nil, want(3))
	f.must(f.server.Kill())
	f.connects(t, f.Client, evil, 2, true)
	f.startServer()
	f.awaitFlows(t, nil, want(5))
	// While the agent is away the ring buffer keeps what it did not hear.
	f.must(f.agent.Kill())
	f.connects(t, f.Client, evil, 4, true)
	f.startAgent()
	f.awaitFlows(t, nil, want(9))
	f.connects(t, f.Client, evil, 1, true)
	f.awaitFlows(t, nil, want(10))
}

// TestFlowEventFlood: what is more than the node tells of is counted, and learning goes on.
func TestFlowEventFlood(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("*.fresh.example"))
	const packets = 30_000
	target := lab.ServicesV4.Addr().Next()
	f.must(f.Client.Flood(netip.AddrPortFrom(target, 9), packets))
	f.expectOpen(t, lab.ResolverV4, lab.FreshName(2))
	counters := f.counters(func(c map[string]uint64) bool {
		return c["verdicts_deny"] == packets && c["flow_events_told"]+c["flow_events_suppressed"]+c["flow_events_lost"] == packets
	})
	if told := counters["flow_events_told"]; told < 1000 || counters["flow_events_suppressed"] == 0 || counters["events_lost"] != 0 {
		t.Errorf("told %d, suppressed %d, lost %d of %d, %d answers lost", told, counters["flow_events_suppressed"], counters["flow_events_lost"], packets, counters["events_lost"])
	}
	f.awaitFlows(t, nil, fmt.Sprintf("%d× DENY ENFORCE %s → %s 9/UDP []: NO_RULE", counters["flow_events_told"], lab.ClientV4, target))
	client := http.Client{Transport: &http.Transport{DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
		return f.Node.Dial(network, address, time.Second)
	}}}
	defer client.CloseIdleConnections()
	response, err := client.Get("http://127.0.0.1:7481/metrics")
	f.must(err)
	defer response.Body.Close() //nolint:errcheck // read already
	metrics, err := io.ReadAll(response.Body)
	f.must(err)
	if want := fmt.Sprintf("nameward_agent_flow_events_total{result=\"suppressed\"} %d\n", counters["flow_events_suppressed"]); !bytes.Contains(metrics, []byte(want)) {
		t.Errorf("metrics without %s", want)
	}
}
