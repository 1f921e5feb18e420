package controlplane_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"pgregory.net/rapid"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/e2e/fleet"
)

// restartable is a server that may be another one at each connection.
type restartable struct {
	t       *testing.T
	dir     string
	drain   time.Duration
	current atomic.Pointer[server]
}

func startRestartable(t *testing.T, drain time.Duration) *restartable {
	r := &restartable{t: t, dir: t.TempDir(), drain: drain}
	r.start()
	return r
}

func (r *restartable) start() {
	r.current.Store(startWith(r.t, r.dir, func(cfg *controlplane.Config) { cfg.DrainTime = r.drain }))
}

func (r *restartable) restart() {
	r.current.Load().stop()
	r.start()
}

func (r *restartable) dial(ctx context.Context, _ string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", r.current.Load().connection.Target())
}

// world is what the server should hold, by a model that knows nothing of how it compiles and publishes.
type world struct {
	server   *restartable
	fleet    *fleet.Fleet
	labels   []map[string]string
	policies map[string]*namewardv1.Policy
	sets     map[string][]string
}

const (
	worldNodes = 8
	plainNode  = 1 // reads no packed changes
	slowNode   = 2
)

func newWorld(t *testing.T) *world {
	w := &world{server: startRestartable(t, 100*time.Millisecond), policies: map[string]*namewardv1.Policy{}, sets: map[string][]string{}}
	roles, zones := []string{"web", "db"}, []string{"", "east"}
	for node := range worldNodes {
		labels := map[string]string{"own": fmt.Sprint(node), "role": roles[node%2]}
		if zone := zones[node/2%2]; zone != "" {
			labels["zone"] = zone
		}
		w.labels = append(w.labels, labels)
	}
	w.fleet = fleet.New(fleet.Config{
		Server: "any", Nodes: worldNodes, BackoffLast: 200 * time.Millisecond,
		Labels: func(node int) map[string]string { return w.labels[node] },
		Keep:   func(int) bool { return true },
		Plain:  func(node int) bool { return node == plainNode },
		Slow: func(node int) time.Duration {
			if node == slowNode {
				return 20 * time.Millisecond
			}
			return 0
		},
		Dial: w.server.dial,
	})
	stop := w.fleet.Start(t.Context())
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return w
}

// whole has an update replace all that there was.
var whole = &fieldmaskpb.FieldMask{Paths: []string{"*"}}

// change makes one random change, of the server's state or of its connections.
func (w *world) change(t *rapid.T) {
	s := w.server.current.Load()
	switch rapid.SampledFrom([]string{"put", "put", "put", "delete", "edit set", "edit set", "fill set", "break", "restart"}).Draw(t, "change") {
	case "put":
		p := w.drawPolicy(t)
		if _, err := s.policies.UpdatePolicy(context.Background(), &namewardv1.UpdatePolicyRequest{Policy: p, UpdateMask: whole, AllowMissing: true}); err != nil {
			t.Fatal(err)
		}
		w.policies[p.GetName()] = p
	case "delete":
		name := drawName(t)
		if _, err := s.policies.DeletePolicy(context.Background(), &namewardv1.DeletePolicyRequest{Name: name, AllowMissing: true}); err != nil {
			t.Fatal(err)
		}
		delete(w.policies, name)
	case "edit set":
		w.putSet(t, s, rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a.test", "*.b.test", "c.test", "d.test"}), 1, 4, rapid.ID[string]).Draw(t, "domains"))
	case "fill set":
		// Long enough to be packed, and to be several messages.
		w.putSet(t, s, manyDomains(rapid.IntRange(1, 9_000).Draw(t, "count"), rapid.SampledFrom([]string{"x", "y"}).Draw(t, "suffix")))
	case "break":
		broken := rapid.SliceOfN(rapid.Bool(), worldNodes, worldNodes).Draw(t, "broken")
		w.fleet.Disconnect(func(node int) bool { return broken[node] })
	case "restart":
		if rapid.IntRange(0, 3).Draw(t, "really") == 0 {
			w.server.restart()
		}
	}
}

func drawName(t *rapid.T) string {
	return "policies/" + rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "name")
}

func (w *world) drawPolicy(t *rapid.T) *namewardv1.Policy {
	p := &namewardv1.Policy{
		Name: drawName(t), Priority: rapid.Int32Range(0, 2).Draw(t, "priority"),
		Mode: namewardv1.Policy_Mode(rapid.IntRange(1, 3).Draw(t, "mode")),
		Rules: []*namewardv1.Rule{{
			Action:  namewardv1.Rule_ALLOW,
			Domains: rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a.test", "*.test", "b.test"}), 1, 3, rapid.ID[string]).Draw(t, "domains"),
		}},
	}
	if selector := rapid.SampledFrom([]string{"", "role=web", "role=db", "zone=east", "own=3"}).Draw(t, "selector"); selector != "" {
		key, value, _ := strings.Cut(selector, "=")
		p.NodeSelector = &namewardv1.NodeSelector{MatchLabels: map[string]string{key: value}}
	}
	if name := drawSet(t); w.sets[name] != nil {
		p.Rules[0].DomainSets = []string{name}
	}
	return p
}

func drawSet(t *rapid.T) string {
	return "domainSets/" + rapid.SampledFrom([]string{"s", "t"}).Draw(t, "set")
}

func (w *world) putSet(t *rapid.T, s *server, domains []string) {
	set := &namewardv1.DomainSet{Name: drawSet(t), Domains: domains}
	if _, err := s.sets.UpdateDomainSet(context.Background(), &namewardv1.UpdateDomainSetRequest{DomainSet: set, UpdateMask: whole, AllowMissing: true}); err != nil {
		t.Fatal(err)
	}
	w.sets[set.GetName()] = domains
}

// wants returns what the compiler says of every node now.
func (w *world) wants(t *rapid.T) (ids []string) {
	snapshot := policy.Snapshot{DomainSets: map[string]*policy.DomainSet{}}
	for _, name := range slices.Sorted(maps.Keys(w.policies)) {
		p, err := policy.Parse(policy.Copy(w.policies[name]))
		if err != nil {
			t.Fatal(err)
		}
		snapshot = snapshot.WithPolicy(p)
	}
	for name, domains := range w.sets {
		set, err := policy.ParseDomainSet(&namewardv1.DomainSet{Name: name, Domains: domains})
		if err != nil {
			t.Fatal(err)
		}
		snapshot.DomainSets[name] = set
	}
	for _, labels := range w.labels {
		id := compile.Compile(snapshot, labels).ID()
		ids = append(ids, string(id[:]))
	}
	return ids
}

// hold reports whether what every agent holds, byte by byte, is what it is to hold.
func (w *world) hold(t *rapid.T, wants []string) bool {
	for node, want := range wants {
		rules, err := w.fleet.Agent(node).Rules()
		if err != nil {
			t.Fatal(err)
		}
		if rules.ID() != ruleset.ID([]byte(want)) {
			t.Logf("node %d holds %s", node, rules.ID())
			return false
		}
	}
	return true
}

// Whatever became of policies, domain sets, streams and the server: what an agent holds is what the compiler says for
// its node now, and what the server announced, byte by byte.
func TestAgentsHoldWhatTheCompilerSays(t *testing.T) {
	w := newWorld(t)
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 12).Draw(rt, "changes") {
			w.change(rt)
		}
		wants := w.wants(rt)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		// A slow agent may hold what it is to hold from before the changes, and go through them still.
		for held := false; !held; held = w.hold(rt, wants) {
			err := w.fleet.Await(ctx, func(s fleet.State) bool { return s.Connected && s.RuleSetID == wants[s.Node] })
			if err := errors.Join(err, ctx.Err()); err != nil {
				for _, s := range w.fleet.States() {
					rt.Logf("node %d: connected %t, %d streams, %x for %x, %v", s.Node, s.Connected, s.Streams, s.RuleSetID, wants[s.Node], s.Err)
				}
				rt.Fatal(err)
			}
		}
	})
	for _, s := range w.fleet.States() {
		if s.Faults > 0 {
			t.Errorf("node %d met %d responses that break the protocol", s.Node, s.Faults)
		}
	}
}

// awaitFleet waits until all agents of a fleet are in a state, and tells of those that are not.
func awaitFleet(t *testing.T, f *fleet.Fleet, what string, is func(fleet.State) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := f.Await(ctx, is); err != nil {
		for _, s := range f.States() {
			if !is(s) {
				t.Logf("not as awaited: %+v", s)
			}
		}
		t.Fatalf("%s: %v", what, err)
	}
}

// A whole fleet comes at once, is told of changes while some read slowly, some refuse and some are cut off, and is asked
// to leave by a server that stops, to which it comes back: nobody is lost, and who agrees is current.
func TestFleetLivesThroughStormsAndADrain(t *testing.T) {
	const nodes, policies = 150, 20
	server := startRestartable(t, 2*time.Second) // time for all to leave on a busy machine
	for i := range policies {
		server.current.Load().put(fmt.Sprintf("p%d", i), "", fmt.Sprintf("h%d.example.com", i))
	}
	refuses := func(node int) bool { return node%10 == 7 }
	f := fleet.New(fleet.Config{
		Server: "any", Nodes: nodes, BackoffLast: 500 * time.Millisecond, Dial: server.dial,
		Slow: func(node int) time.Duration { return time.Duration(node%5) * 5 * time.Millisecond },
		Refuse: func(node int, _ uint64) error {
			if refuses(node) {
				return errors.New("the map is full")
			}
			return nil
		},
	})
	stop := f.Start(t.Context())
	await := func(what string, is func(fleet.State) bool) {
		t.Helper()
		awaitFleet(t, f, what, is)
	}
	await("join", func(s fleet.State) bool { return s.Connected && s.Revision >= policies })
	revision := f.Agent(0).State().Revision
	for i := range 20 {
		server.current.Load().put("p0", "", fmt.Sprintf("changed%d.example.com", i))
		f.Disconnect(func(node int) bool { return node%20 == i })
	}
	current := func(s fleet.State) bool {
		return s.Connected && s.Revision >= revision+20 && (refuses(s.Node) || s.Acked == s.Revision)
	}
	await("changes", current)
	server.current.Load().status("node-7", func(s *namewardv1.NodeStatus) bool { return s.GetLastError() != "" && s.GetConnected() })
	server.restart()
	await("come back", func(s fleet.State) bool { return current(s) && s.Streams > 1 })
	drained, resumed := 0, 0
	for _, s := range f.States() {
		drained += min(s.Drained, 1)
		if s.Drained > 0 && s.Hints == 0 {
			t.Errorf("node %d was asked to leave, and not told when to come again", s.Node)
		}
		resumed += min(s.Resumed, 1)
		if s.Faults > 0 {
			t.Errorf("node %d met %d responses that break the protocol", s.Node, s.Faults)
		}
	}
	if drained < nodes*9/10 || resumed < nodes*9/10 {
		t.Errorf("of %d nodes %d left when they were asked to, and %d went on with what they held", nodes, drained, resumed)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// The operator is told that two agents claim one node, and a machine that was cloned while its agent ran does not
// drive its copy out for ever.
func TestTwoAgentsOfOneNodeAreTold(t *testing.T) {
	s := start(t, t.TempDir())
	first := newAgent(t, "n", nil)
	first.connect(s.connection)
	first.complete()
	defer first.leave()
	second := newAgent(t, "n", nil)
	second.instance = "another"
	second.connect(s.connection)
	if code := second.end(); code != codes.AlreadyExists {
		t.Errorf("the second agent ended with %v", code)
	}
	told := func(st *namewardv1.NodeStatus) bool {
		return slices.ContainsFunc(st.GetDegraded(), func(fault string) bool { return strings.Contains(fault, "another agent") })
	}
	s.status("n", told)

	holder := newAgent(t, "cloned", nil)
	holder.connect(s.connection)
	holder.complete()
	for takeovers := 0; ; takeovers++ {
		clone := newAgent(t, "cloned", nil)
		clone.connect(s.connection)
		select {
		case response := <-clone.responses:
			if takeovers > 10 {
				t.Fatalf("copies drive each other out for ever: %v", response)
			}
			holder.end()
			holder = clone
			continue
		case err := <-clone.ended:
			if status.Code(err) != codes.AlreadyExists || takeovers < 3 {
				t.Errorf("a copy ended with %v after %d takeovers", err, takeovers)
			}
		}
		break
	}
	s.status("cloned", func(st *namewardv1.NodeStatus) bool { return told(st) && st.GetConnected() })
	holder.leave()
}
