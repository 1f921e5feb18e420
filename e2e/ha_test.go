package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
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
