package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// awaitConnected waits until the agent stands with the server as wanted.
func (f *fleet) awaitConnected(t *testing.T, want bool) {
	t.Helper()
	f.must(lab.Await(t.Context(), func() error {
		if server := f.agentState(t).GetServer(); (server != "") != want {
			return fmt.Errorf("connected to %q", server)
		}
		return nil
	}, nil))
}

// mappingsOf returns what the server knows of a name.
func (f *fleet) mappingsOf(t *testing.T, name string) []*namewardv1.Mapping {
	t.Helper()
	response, err := namewardv1.NewObservationServiceClient(f.conn).ListMappings(t.Context(), &namewardv1.ListMappingsRequest{
		Filter: &namewardv1.MappingFilter{Domain: name},
	})
	f.must(err)
	return response.GetMappings()
}

// TestServerAway: while the server is away a mapping ends, others come, and connections are denied. At its
// return it knows what lives, once, and each denial once.
func TestServerAway(t *testing.T) {
	const brief, before, meanwhile = "brief.example", "shop.example", "late.example"
	f := newFleet(t, "--min-ttl", "1s", "--ttl-grace", "1s")
	f.put(clientPolicy(brief, before, meanwhile))
	for _, name := range []string{brief, before} {
		f.expectOpen(t, lab.ResolverV4, name)
		f.awaitMapping(name)
	}
	evil := f.learn(t, lab.ResolverV4, "evil.example")
	f.connects(t, f.Client, evil, 2, true)
	denied := func(times int) string {
		return fmt.Sprintf("%d× DENY ENFORCE %s → %s %d/TCP [evil.example]: NO_RULE", times, lab.ClientV4, evil, lab.ServicePort)
	}
	f.awaitFlows(t, nil, denied(2))

	// Stopped, not killed: the server comes back without what it knew of nodes.
	f.must(f.server.Stop())
	f.connects(t, f.Client, evil, 3, true)
	local, err := f.DialAgent()
	f.must(err)
	defer local.Close() //nolint:errcheck // the test is over
	f.must(lab.Await(t.Context(), func() error {
		live, err := agentv1.NewLocalServiceClient(local).ListMappings(t.Context(), &namewardv1.ListMappingsRequest{
			Filter: &namewardv1.MappingFilter{Domain: brief},
		})
		if err == nil && len(live.GetMappings()) > 0 {
			err = fmt.Errorf("alive: %v", live.GetMappings())
		}
		return err
	}, nil))
	f.expectOpen(t, lab.ResolverV4, meanwhile)
	f.startServer()
	f.awaitCurrent()
	f.awaitMapping(before)
	f.awaitMapping(meanwhile)
	addresses := map[string][]string{brief: nil}
	for _, name := range []string{brief, before, meanwhile} {
		for _, m := range f.mappingsOf(t, name) {
			addresses[name] = append(addresses[name], m.GetAddress())
		}
	}
	want := map[string][]string{brief: nil, before: {"198.18.206.1"}, meanwhile: {"198.18.204.1"}}
	if !reflect.DeepEqual(addresses, want) {
		t.Errorf("mappings at the return: got %v, want %v", addresses, want)
	}
	f.awaitFlows(t, nil, denied(5))
}

// TestServerCutOff: packets to and from the server are dropped without a word. The agent notices, enforces
// on, and comes back by itself.
func TestServerCutOff(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("*.fresh.example"))
	cut := func(command string) {
		t.Helper()
		for _, port := range []string{"--dport", "--sport"} {
			_, err := f.command(t.Context(), "iptables-nft", "-w", "-t", "raw", command, "OUTPUT", "-o", "lo", "-p", "tcp", port, "7443", "-j", "DROP")
			f.must(err)
		}
	}
	cut("-A")
	f.awaitConnected(t, false) // within 30 seconds
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, lab.FreshName(1))
		f.expectRefused(t, resolver, "evil.example")
	})
	cut("-D")
	f.awaitConnected(t, true)
	f.awaitCurrent()
	f.awaitMapping(lab.FreshName(1))
}

// TestServerStuck: the server's process stops where it is, and its machine goes on to acknowledge. The
// agent's memory stays bounded, enforcement and learning go on, and the agent notices.
func TestServerStuck(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("*.fresh.example"))
	before, err := f.agent.Memory()
	f.must(err)
	f.must(f.server.Freeze())
	defer f.server.Thaw() //nolint:errcheck // it may have ended
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		for i := range 100 {
			f.expectOpen(t, resolver, lab.FreshName(i))
		}
		f.expectRefused(t, resolver, "evil.example")
	})
	f.awaitConnected(t, false) // within 40 seconds
	after, err := f.agent.Memory()
	f.must(err)
	if grown := after - before; grown > 32<<20 {
		t.Errorf("the agent grew by %d MiB", grown>>20)
	}
	f.must(f.server.Thaw())
	f.awaitConnected(t, true)
	f.awaitMapping(lab.FreshName(99))
}

// TestServerLostItsStore: a server that comes back with nothing takes nothing from the nodes. With a policy
// for them it is their server again.
func TestServerLostItsStore(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("*.fresh.example"))
	f.must(errors.Join(f.server.Kill(), os.RemoveAll(filepath.Join(f.Dir, "server"))))
	f.startServer()
	f.must(lab.Await(t.Context(), func() error {
		node, err := namewardv1.NewNodeServiceClient(f.conn).GetNode(t.Context(), &namewardv1.GetNodeRequest{Name: "nodes/" + lab.NodeName})
		if err != nil {
			return err
		}
		if fault := node.GetStatus().GetLastError(); !strings.Contains(fault, "store is another one") {
			return fmt.Errorf("last error of the node: %q", fault)
		}
		return nil
	}, nil))
	if state := f.agentState(t); !strings.Contains(fmt.Sprint(state.GetDegraded()), "store is another one") {
		t.Errorf("degraded: %q", state.GetDegraded())
	}
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, lab.FreshName(1))
		f.expectRefused(t, resolver, "evil.example")
	})
	f.put(clientPolicy("evil.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "evil.example")
		f.expectRefused(t, resolver, lab.FreshName(2))
	})
}

// TestSecondServer: with two servers named, of which one is not there, the node finds the other.
func TestSecondServer(t *testing.T) {
	f := newFleet(t, "--server", "127.0.0.1:7999")
	f.put(clientPolicy("*.fresh.example"))
	f.must(f.server.Kill())
	f.awaitConnected(t, false)
	f.startServer()
	f.awaitConnected(t, true)
	f.awaitCurrent()
}

// TestKilledWhileItLearns: the agent is killed again and again while it reads what the kernel learned. No
// name is forgotten.
func TestKilledWhileItLearns(t *testing.T) {
	f := newFleet(t, "--min-ttl", "1h") // nothing expires meanwhile
	f.put(clientPolicy("*.fresh.example"))
	const rounds, names = 8, 20
	for round := range rounds {
		resolved := make(chan error, 1)
		go func() {
			var errs []error
			for i := range names {
				_, err := f.Resolve(lab.ResolverV4, lab.FreshName(round*names+i))
				errs = append(errs, err)
			}
			resolved <- errors.Join(errs...)
		}()
		if round%3 != 0 { // else it is killed while they come; here it may have read some
			f.must(<-resolved)
			f.must(f.agent.Kill())
		} else {
			f.must(f.agent.Kill())
			f.must(<-resolved)
		}
		agent, err := f.StartAgentAlone(t.Context(), f.agentFlags...)
		f.must(err)
		f.agent = agent
	}
	conn, err := f.DialAgent()
	f.must(err)
	defer conn.Close() //nolint:errcheck // the test is over
	known := map[string]bool{}
	f.must(lab.Await(t.Context(), func() error {
		request := &namewardv1.ListMappingsRequest{PageSize: 1000}
		for more := true; more; more = request.PageToken != "" {
			page, err := agentv1.NewLocalServiceClient(conn).ListMappings(t.Context(), request)
			if err != nil {
				return err
			}
			for _, m := range page.GetMappings() {
				known[m.GetDomain()] = true
			}
			request.PageToken = page.GetNextPageToken()
		}
		for i := range rounds * names {
			if !known[lab.FreshName(i)] {
				return fmt.Errorf("%s is forgotten", lab.FreshName(i))
			}
		}
		return nil
	}, nil))
}
