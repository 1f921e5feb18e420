package controlplane_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/controlplane"
	"github.com/nameward/nameward/e2e/fleet"
)

// measured returns the lines of the metrics that have a text in them.
func measured(t testing.TB, s *server, text string) string {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	response, err := http.Get("http://" + s.metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	all, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(all)) {
		if strings.Contains(line, text) && !strings.HasPrefix(line, "#") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return strings.Join(lines, ", ")
}

func reasonOf(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// awaitHeard waits until a server has heard all that another one knows, and so can say of it how it is.
func awaitHeard(t testing.TB, by, other *server) {
	t.Helper()
	probe := newAgent(t, "probe", nil)
	probe.connect(other.connection)
	probe.complete()
	by.status("probe", func(s *namewardv1.NodeStatus) bool { return s.GetConnected() })
	// What changes is told behind what was known when the servers met.
	probe.leave()
	by.status("probe", func(s *namewardv1.NodeStatus) bool { return !s.GetConnected() })
}

// A server that stops is no longer ready, then tells its agents where to go, refuses those that come, and answers the
// rest until they have left.
func TestAServerThatStops(t *testing.T) {
	e := startEtcd(t)
	// It ends when the last agent has gone.
	long := func(c *controlplane.Config) { c.DrainTime = 10 * time.Minute }
	a, b := startOn(t, e, long), startOn(t, e)
	awaitHeard(t, a, b)
	agent := newAgent(t, "n", nil)
	agent.connect(a.connection)
	agent.complete()
	agent.ack()
	b.status("n", func(s *namewardv1.NodeStatus) bool { return s.GetConnected() })
	watch, err := a.policies.WatchPolicies(t.Context(), &namewardv1.WatchPoliciesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	health, err := healthv1.NewHealthClient(a.connection).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if said, err := health.Recv(); err != nil || said.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("health: %v, %v", said, err)
	}
	stopped := make(chan struct{})
	go func() { a.stop(); close(stopped) }()

	asked := agent.next()
	for asked.GetDrain() == nil {
		asked = agent.next()
	}
	if got, want := asked.GetDrainServers(), []string{b.connection.Target()}; !slices.Equal(got, want) {
		t.Errorf("told to go to %v, want %v", got, want)
	}
	// No sooner than when all must have left, and a test takes less than half of that.
	if again := asked.GetRetryAfter().AsDuration(); again < 5*time.Minute || again > 11*time.Minute {
		t.Errorf("told to come again after %v, and all leave within 10 minutes", again)
	}
	if said, err := health.Recv(); err != nil || said.GetStatus() != healthv1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("health of a server that has asked its agents to leave: %v, %v", said, err)
	}
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable || reasonOf(err) != "STOPPING" {
		t.Errorf("a watch ended with %v", err)
	}
	late := newAgent(t, "late", nil)
	late.connect(a.connection)
	select {
	case err := <-late.ended:
		if status.Code(err) != codes.Unavailable || reasonOf(err) != "STOPPING" {
			t.Errorf("an agent that came late got %v", err)
		}
		if again := transport.RetryDelay(err); again < 5*time.Minute || again > 11*time.Minute {
			t.Errorf("an agent that came late is told to come again after %v", again)
		}
	case response := <-late.responses:
		t.Errorf("an agent that came late got %v", response)
	case <-time.After(patience):
		t.Error("an agent that came late got no answer")
	}
	a.put("p", "", "while-it-stops.example.com")
	agent.complete()
	agent.ack()
	for _, want := range []string{
		"nameward_server_ready 0", "nameward_server_draining 1", "nameward_server_agents_asked_to_leave_total 1",
		`nameward_server_agents_left_total{outcome="left"} 0`, "nameward_server_streams_refused_stopping_total 1",
	} {
		if name, _, _ := strings.Cut(want, " "); measured(t, a, name) != want {
			t.Errorf("%s, want %s", measured(t, a, name), want)
		}
	}
	// The other server is told all until the end, and sends nobody here.
	b.status("n", func(s *namewardv1.NodeStatus) bool { return s.GetAppliedRevision() == agent.revision })
	page, err := b.nodes.ListNodes(t.Context(), &namewardv1.ListNodesRequest{})
	if err != nil || len(page.GetUnreachable()) > 0 {
		t.Errorf("the other server lacks %v, %v", page.GetUnreachable(), err)
	}
	agent.leave()
	<-stopped
	agent.connect(b.connection)
	if first := agent.complete()[0]; !first.GetResumed() {
		t.Errorf("the agent begins anew: %v", first)
	}
	agent.leave()
}

// Of a fleet that is on two servers, those on the one that stops are on the other at their first attempt, and at once.
// Those that came to it are not disturbed, and what changed meanwhile is everywhere.
func TestAFleetMovesToTheServerThatStays(t *testing.T) {
	const nodes = 240
	e := startEtcd(t)
	soon := func(c *controlplane.Config) { c.DrainTime = time.Second }
	a, b := startOn(t, e, soon), startOn(t, e, soon)
	awaitHeard(t, a, b)
	f := fleet.New(fleet.Config{Servers: []string{a.connection.Target(), b.connection.Target()}, Nodes: nodes, Remember: func(int) bool { return true }})
	end := f.Start(t.Context())
	await := func(what string, is func(fleet.State) bool) {
		t.Helper()
		awaitFleet(t, f, what, is)
	}
	a.put("p", "", "one.example.com")
	await("all hold the first policy", func(s fleet.State) bool { return s.Connected && s.Revision > 0 && s.Acked == s.Revision })
	for node := range nodes {
		if _, err := f.Agent(node).Observe([]*namewardv1.Mapping{observed(fmt.Sprintf("n%d.example.com", node), "192.0.2.1", time.Hour)}); err != nil {
			t.Fatal(err)
		}
	}
	// On a busy machine some agents may have gone to their second server at the start.
	before := f.States()
	leaves := func(node int) bool { return before[node].Server == a.connection.Target() }
	stopped := make(chan struct{})
	go func() { a.stop(); close(stopped) }()
	changed := b.put("p", "", "two.example.com")
	<-stopped
	await("all are on the server that stays", func(s fleet.State) bool { return s.Connected && s.Server == b.connection.Target() })
	revision := uint64(0)
	for _, s := range f.States() {
		revision = max(revision, s.Revision)
	}
	await("all hold the change "+changed.GetName(), func(s fleet.State) bool { return s.Connected && s.Acked == revision })
	moved := 0
	for _, s := range f.States() {
		was, streams := before[s.Node], 0
		if leaves(s.Node) {
			moved++
			streams = 1
		}
		if s.Streams != was.Streams+streams || s.Drained != streams || s.AtOnce != streams || s.Tries > 1 && leaves(s.Node) ||
			s.Failures != was.Failures || s.Faults > 0 || s.Reset != was.Reset {
			t.Errorf("node %d: %+v, was %+v", s.Node, s, was)
		}
	}
	if moved < nodes/3 {
		t.Errorf("%d agents moved of %d", moved, nodes)
	}
	page, err := b.mappings.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{PageSize: 1000})
	if err != nil || len(page.GetMappings()) != nodes {
		t.Errorf("%d mappings are known, %v", len(page.GetMappings()), err)
	}
	if err := end(); err != nil {
		t.Error(err)
	}
}

// A change that a server acknowledged while it stopped is there afterwards, and one that it refused is not.
func TestChangesWhileAServerStops(t *testing.T) {
	const writers, before = 8, 100
	dir := t.TempDir()
	s := startWith(t, dir, func(c *controlplane.Config) { c.DrainTime = 100 * time.Millisecond })
	var mu sync.Mutex // guards both
	acknowledged, refused := map[string]bool{}, map[string]bool{}
	enough := make(chan struct{})
	var working sync.WaitGroup
	for w := range writers {
		working.Go(func() {
			for i := 0; ; i++ {
				id := fmt.Sprintf("p%d-%d", w, i)
				_, err := s.policies.CreatePolicy(context.Background(), &namewardv1.CreatePolicyRequest{PolicyId: id, Policy: &namewardv1.Policy{
					Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{"a.example.com"}}},
				}})
				mu.Lock()
				if err != nil {
					refused["policies/"+id] = true
					mu.Unlock()
					// The connection is closed behind the server.
					if code := status.Code(err); code != codes.Unavailable && code != codes.Canceled {
						t.Errorf("%s: %v", id, err)
					}
					return
				}
				acknowledged["policies/"+id] = true
				if len(acknowledged) == before {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	s.stop()
	working.Wait()
	s = start(t, dir)
	there := map[string]bool{}
	request := &namewardv1.ListPoliciesRequest{PageSize: 1000}
	for {
		page, err := s.policies.ListPolicies(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range page.GetPolicies() {
			there[p.GetName()] = true
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	var errs []error
	for name := range acknowledged {
		if !there[name] {
			errs = append(errs, fmt.Errorf("%s was acknowledged and is not there", name))
		}
	}
	for name := range refused {
		if there[name] {
			errs = append(errs, fmt.Errorf("%s was refused and is there", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	t.Logf("%d changes acknowledged", len(acknowledged))
}
