package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/cluster"
	fleets "github.com/nameward/nameward/e2e/fleet"
)

var (
	haFor  = flag.Duration("ha", 30*time.Second, "how long TestHighAvailability injects faults")
	haSeed = flag.Uint64("ha-seed", 1, "what its faults are drawn from")
)

const (
	haServers, haMembers, haNodes = 3, 3, 200
	haRoles                       = 40
)

// TestHighAvailability runs three servers on three members of etcd, with 200 agents and clients that change policies at
// any of them, and kills, freezes and cuts off servers and members, drawn by seed. In the end every change that was
// acknowledged is at every server, what the clients saw is as from one register a policy, every agent has what it
// should, and what the agents saw is known everywhere.
func TestHighAvailability(t *testing.T) {
	requireRoot(t)
	h := newHighlyAvailable(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var working sync.WaitGroup
	for client := range 4 {
		working.Go(func() { h.history.work(ctx, client, *haSeed, h.conns) })
	}
	working.Go(func() { h.observe(ctx) })
	began := time.Now()
	for time.Since(began) < *haFor && !t.Failed() {
		h.fault(t)
	}
	h.mend(t)
	stop()
	working.Wait()
	h.expectReady(t)
	h.history.readAll(t, h.conns)
	h.expectAgreement(t)
	h.expectAgents(t)
	h.expectMappings(t)
	h.history.check(t)
	slices.Sort(h.moves)
	if len(h.moves) > 0 {
		t.Logf("after a kill of a server all agents were connected within %v (median), %v (worst of %d)", h.moves[len(h.moves)/2], h.moves[len(h.moves)-1], len(h.moves))
	}
	t.Logf("seed %d, %v: faults %v, %d operations %v, slowest %v", *haSeed, time.Since(began).Round(time.Second), h.injected, len(h.history.ops), h.history.counts, h.history.slowest.Round(time.Millisecond))
}

// highlyAvailable is three servers on three members of etcd, with a fleet.
type highlyAvailable struct {
	net      *highNet
	servers  []*participant
	members  []*participant
	conns    []*grpc.ClientConn
	fleet    *fleets.Fleet
	history  *history
	random   *rand.Rand
	injected map[string]int
	moves    []time.Duration

	// observed are the names that nodes saw, unsent counts those that were seen without a stream. Both are of the one
	// that observes, until it has ended.
	observed map[string]bool
	unsent   int
}

func newHighlyAvailable(t *testing.T) *highlyAvailable {
	t.Helper()
	for _, program := range []string{"etcd", "setpriv"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("this test needs %s", program)
		}
	}
	h := &highlyAvailable{net: newHighNet(t), random: rand.New(rand.NewPCG(*haSeed, 1)), history: newHistory(), injected: map[string]int{}, observed: map[string]bool{}}
	dir := t.TempDir()
	// The programs run as other users.
	for at := dir; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	h.startEtcd(t, dir)
	h.startServers(t, dir)
	h.net.connected()
	t.Cleanup(func() {
		for _, p := range slices.Concat(h.servers, h.members) {
			if t.Failed() {
				log := p.ReadLog()
				t.Logf("%s:\n%s", p.name, log[max(0, len(log)-6000):])
			}
			_ = p.Kill()
		}
	})
	h.startFleet(t)
	return h
}

func (h *highlyAvailable) startEtcd(t *testing.T, dir string) {
	t.Helper()
	var places []cluster.Place
	for i := range haMembers {
		p := h.net.join(fmt.Sprintf("etcd-%d", i), fmt.Sprintf("127.1.0.%d", i+1), 21001+i, 11+i)
		h.members = append(h.members, p)
		places = append(places, cluster.Place{Host: p.host, Client: 2379, Peer: 2380, Command: h.net.command(p), Owner: p.uid})
	}
	// The machine may be slow and busy: members are patient with each other.
	etcd, err := cluster.StartEtcd(t.Context(), dir, places, "--heartbeat-interval=200", "--election-timeout=2000")
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range etcd.Members {
		h.members[i].Process = m.Process
	}
}

func (h *highlyAvailable) startServers(t *testing.T, dir string) {
	t.Helper()
	var endpoints string
	for i, m := range h.members {
		if i > 0 {
			endpoints += ","
		}
		endpoints += m.host + ":2379"
	}
	for i := range haServers {
		p := h.net.join(fmt.Sprintf("server-%d", i), fmt.Sprintf("127.2.0.%d", i+1), 22001+i, 21+i)
		data := filepath.Join(dir, p.name+"-data")
		if err := os.Mkdir(data, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(data, p.uid, p.uid); err != nil {
			t.Fatal(err)
		}
		command := h.net.command(p)
		p.Process = cluster.NewProcess(dir, p.name, func(context.Context) *exec.Cmd {
			return command(context.Background(), filepath.Join(programs, "nameward-server"), "--insecure", "--store", "etcd",
				"--etcd-endpoints", endpoints, "--listen", p.host+":7443", "--metrics-listen", p.host+":7480", "--data-dir", data)
		})
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		h.servers = append(h.servers, p)
		conn, err := grpc.NewClient("passthrough:///"+p.host+":7443", h.dialOptions()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		h.conns = append(h.conns, conn)
	}
}

// dialOptions dial in the namespace, and notice that a server is silent.
func (h *highlyAvailable) dialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(h.dial),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second}),
	}
}

// dial connects in the namespace.
func (h *highlyAvailable) dial(ctx context.Context, address string) (net.Conn, error) {
	var conn net.Conn
	err := h.net.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", address)
		return err
	})
	return conn, err
}

func (h *highlyAvailable) startFleet(t *testing.T) {
	t.Helper()
	var addresses []string
	for _, s := range h.servers {
		addresses = append(addresses, s.host+":7443")
	}
	h.fleet = fleets.New(fleets.Config{
		Servers: addresses, Nodes: haNodes, Dial: h.dial, Silence: 10 * time.Second, BackoffLast: 3 * time.Second,
		Remember: func(int) bool { return true },
		Labels:   func(node int) map[string]string { return map[string]string{"role": fmt.Sprintf("r%d", node%haRoles)} },
	})
	end := h.fleet.Start(t.Context())
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	h.awaitFleet(t, "connected", func(s fleets.State) bool { return s.Connected })
}

func (h *highlyAvailable) awaitFleet(t *testing.T, what string, is func(fleets.State) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	if err := h.fleet.Await(ctx, is); err != nil {
		t.Fatalf("agents are not %s: %v", what, err)
	}
}

// observe has agents see mappings, and report them as long as they are connected. What a node saw and still lives is to
// be known in the end: acknowledged by a server that was killed, under way when a stream broke, or seen without one.
func (h *highlyAvailable) observe(ctx context.Context) {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for round := 0; ctx.Err() == nil; round++ {
		name := fmt.Sprintf("m%d.example.net", round)
		now := time.Now()
		_, err := h.fleet.Agent(round % haNodes).Observe([]*namewardv1.Mapping{{
			Domain: name, Address: fmt.Sprintf("192.0.2.%d", round%250), Client: "10.1.0.7",
			FirstSeenTime: timestamppb.New(now), LastSeenTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(2 * time.Hour)),
		}})
		h.observed[name] = true
		if err != nil {
			h.unsent++
		}
		select {
		case <-ctx.Done():
		case <-ticker.C:
		}
	}
}

// fault injects one or two faults at once, and mends them.
func (h *highlyAvailable) fault(t *testing.T) {
	t.Helper()
	lasts := time.Duration(1000+h.random.IntN(7000)) * time.Millisecond
	mend := []func(){h.oneFault(t)}
	if h.random.IntN(4) == 0 {
		mend = append(mend, h.oneFault(t))
	}
	time.Sleep(lasts) // the fault is what is waited for
	for _, m := range mend {
		m()
	}
	time.Sleep(time.Duration(h.random.IntN(3000)) * time.Millisecond)
}

func (h *highlyAvailable) oneFault(t *testing.T) (mend func()) {
	t.Helper()
	server, member := h.servers[h.random.IntN(haServers)], h.members[h.random.IntN(haMembers)]
	count := func(what string) { h.injected[what]++ }
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	switch h.random.IntN(10) {
	case 0, 1:
		count("server killed")
		must(server.Kill())
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		// An agent needs a moment to notice, where the server had any.
		for noticed := false; !noticed && time.Since(began) < time.Second; time.Sleep(time.Millisecond) {
			noticed = slices.ContainsFunc(h.fleet.States(), func(s fleets.State) bool { return !s.Connected })
		}
		if err := h.fleet.Await(ctx, func(s fleets.State) bool { return s.Connected }); err == nil {
			h.moves = append(h.moves, time.Since(began).Round(time.Millisecond))
		}
		return func() { must(restart(t, server)) }
	case 2:
		count("server frozen")
		must(server.Signal(syscall.SIGSTOP))
		return func() { must(server.Signal(syscall.SIGCONT)) }
	case 3:
		count("server cut off from etcd")
		for _, m := range h.members {
			h.net.cut(server, m)
		}
		return h.net.heal
	case 4:
		count("server cut off from all")
		for _, p := range slices.Concat(h.members, h.servers, []*participant{&clients}) {
			if p != server {
				h.net.cut(server, p)
			}
		}
		return h.net.heal
	case 5:
		count("servers cut off from each other")
		for i, a := range h.servers {
			for _, b := range h.servers[:i] {
				h.net.cut(a, b)
			}
		}
		return h.net.heal
	case 6:
		count("member killed")
		must(member.Kill())
		return func() { must(restart(t, member)) }
	case 8:
		count("server stopped")
		must(server.Signal(syscall.SIGTERM))
		return func() {
			must(server.Signal(syscall.SIGCONT)) // where it was frozen, too
			<-server.Exited()
			must(restart(t, server))
		}
	case 7:
		count("member frozen")
		must(member.Signal(syscall.SIGSTOP))
		return func() { must(member.Signal(syscall.SIGCONT)) }
	default:
		count("member cut off from all but some servers")
		for _, p := range h.members {
			if p != member {
				h.net.cut(member, p)
			}
		}
		h.net.cut(member, server)
		return h.net.heal
	}
}

// mend leaves nothing wrong: what was killed twice at once runs, too.
func (h *highlyAvailable) mend(t *testing.T) {
	t.Helper()
	h.net.heal()
	for _, p := range slices.Concat(h.members, h.servers) {
		_ = p.Signal(syscall.SIGCONT)
		if err := restart(t, p); err != nil {
			t.Error(err)
		}
	}
}

// restart starts what has ended.
func restart(t *testing.T, p *participant) error {
	select {
	case <-p.Exited():
		return p.Start(t.Context())
	default:
		return nil
	}
}

// expectReady waits until every server serves all and hears the others.
func (h *highlyAvailable) expectReady(t *testing.T) {
	t.Helper()
	for i, conn := range h.conns {
		await(t, fmt.Sprintf("server %d is complete", i), func(ctx context.Context) error {
			page, err := namewardv1.NewNodeServiceClient(conn).ListNodes(ctx, &namewardv1.ListNodesRequest{PageSize: 1})
			if err == nil && len(page.GetUnreachable()) > 0 {
				err = fmt.Errorf("%v are unreachable", page.GetUnreachable())
			}
			return err
		})
	}
}

// await asks until there is no error.
func await(t *testing.T, what string, ask func(context.Context) error) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := ask(ctx)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// expectAgreement holds the policies of the servers against each other.
func (h *highlyAvailable) expectAgreement(t *testing.T) {
	t.Helper()
	var first []*namewardv1.Policy
	for i, conn := range h.conns {
		var all []*namewardv1.Policy
		request := &namewardv1.ListPoliciesRequest{PageSize: 1000}
		for {
			page, err := namewardv1.NewPolicyServiceClient(conn).ListPolicies(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, page.GetPolicies()...)
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				break
			}
		}
		if i == 0 {
			first = all
		} else if !slices.EqualFunc(first, all, func(a, b *namewardv1.Policy) bool { return proto.Equal(a, b) }) {
			t.Errorf("server %d has other policies than server 0: %d and %d", i, len(all), len(first))
		}
	}
}

// expectAgents waits until every agent has what it should, as every server knows.
func (h *highlyAvailable) expectAgents(t *testing.T) {
	t.Helper()
	h.awaitFleet(t, "connected", func(s fleets.State) bool { return s.Connected })
	for i, conn := range h.conns {
		await(t, fmt.Sprintf("every agent is current, as server %d knows", i), func(ctx context.Context) error {
			page, err := namewardv1.NewNodeServiceClient(conn).ListNodes(ctx, &namewardv1.ListNodesRequest{PageSize: 1000})
			if err != nil {
				return err
			}
			for _, n := range page.GetNodes() {
				if n.GetStatus().GetState() != namewardv1.NodeStatus_CURRENT {
					return fmt.Errorf("%v", n)
				}
			}
			if len(page.GetNodes()) != haNodes {
				return fmt.Errorf("%d nodes", len(page.GetNodes()))
			}
			return nil
		})
	}
	for node := range haNodes {
		state := h.fleet.Agent(node).State()
		if state.Faults > 0 {
			t.Errorf("node %d saw %d breaches of the protocol", node, state.Faults)
		}
		rules, err := namewardv1.NewNodeServiceClient(h.conns[node%haServers]).GetRuleSet(t.Context(), &namewardv1.GetRuleSetRequest{Node: fmt.Sprintf("nodes/node-%d", node)})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", state.RuleSetID); got != rules.GetRuleSetId() || !rules.GetInForce() {
			t.Errorf("node %d has %s, should have %s", node, got, rules.GetRuleSetId())
		}
	}
}

// expectMappings holds that all that nodes saw is known everywhere.
func (h *highlyAvailable) expectMappings(t *testing.T) {
	t.Helper()
	for i, conn := range h.conns {
		await(t, fmt.Sprintf("server %d knows what all nodes saw", i), func(ctx context.Context) error {
			known, err := knownNames(ctx, namewardv1.NewObservationServiceClient(conn))
			if err != nil {
				return err
			}
			var lost []string
			for name := range h.observed {
				if !known[name] {
					lost = append(lost, name)
				}
			}
			if len(lost) > 0 {
				slices.Sort(lost)
				return fmt.Errorf("%d of %d mappings are not known: %v", len(lost), len(h.observed), lost[:min(len(lost), 20)])
			}
			return nil
		})
	}
	t.Logf("%d mappings observed, %d of them without a stream: all are known at every server", len(h.observed), h.unsent)
}

// knownNames returns the domains of all mappings that a server knows.
func knownNames(ctx context.Context, client namewardv1.ObservationServiceClient) (map[string]bool, error) {
	known := map[string]bool{}
	request := &namewardv1.ListMappingsRequest{PageSize: 1000}
	for {
		page, err := client.ListMappings(ctx, request)
		if err != nil {
			return nil, err
		}
		for _, m := range page.GetMappings() {
			known[m.GetDomain()] = true
		}
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			return known, nil
		}
	}
}
