package e2e_test

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/cluster"
	"github.com/nameward/nameward/e2e/lab"
)

// firstFor returns the server that is a node's own: of two that it knows, the one that it tries first.
func firstFor(node string, servers ...string) string {
	return slices.MinFunc(servers, func(a, b string) int {
		rank := func(server string) string {
			sum := sha256.Sum256([]byte(node + "\x00" + server))
			return string(sum[:])
		}
		return cmp.Compare(rank(a), rank(b))
	})
}

// TestServerSaysWhereToGo: of two servers the one that the node is connected to is stopped. The agent goes to the other
// one at once, as it was told; what it enforces is not touched, and what it learned is known there.
func TestServerSaysWhereToGo(t *testing.T) {
	f := &fleet{Lab: newLab(t), t: t}
	etcd, err := cluster.StartEtcd(t.Context(), f.Dir, []cluster.Place{{Host: "127.0.0.1", Client: 2379, Peer: 2380, Command: f.Node.Command}})
	f.must(err)
	t.Cleanup(func() { _ = etcd.Kill() })
	addresses := []string{lab.ServerAddress, "127.0.0.1:7444", "127.0.0.1:7445"}
	servers, conns := map[string]*lab.Process{}, map[string]*grpc.ClientConn{}
	for i, address := range addresses {
		// The last flag counts.
		servers[address], err = f.Start(t.Context(), f.Node, fmt.Sprintf("nameward-server-%d", i), f.Program("nameward-server"),
			"--insecure", "--store", "etcd", "--etcd-endpoints", etcd.Endpoints()[0], "--listen", address, "--metrics-listen", fmt.Sprintf("127.0.0.1:%d", 7490+i),
			"--data-dir", filepath.Join(f.Dir, fmt.Sprintf("server-%d", i)), "--drain-time", "1s")
		f.must(err)
		conns[address], err = grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return f.Node.Dial("tcp", address, lab.Patience) }))
		f.must(err)
		t.Cleanup(func() { _ = conns[address].Close() })
	}
	// The node knows two of the three, and its own is the one that will stop. The third is offered too, and not gone to.
	home := firstFor(lab.NodeName, addresses[:2]...)
	other := addresses[(slices.Index(addresses, home)+1)%2]
	f.conn = conns[home]
	f.must(lab.Await(t.Context(), func() error {
		var errs []error
		for i, address := range addresses {
			text, err := f.served(fmt.Sprintf("http://127.0.0.1:%d/metrics", 7490+i))
			if err == nil && !strings.Contains(text, "nameward_server_peers_reachable 2\n") {
				err = fmt.Errorf("%s does not hear the others", address)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}, nil))
	f.agent, err = f.StartAgentAlone(t.Context(), "--server", addresses[1])
	f.must(err)
	f.awaitCurrent()
	if at := f.agentState(t).GetServer(); at != home {
		t.Fatalf("connected to %s, want %s", at, home)
	}
	f.put(clientPolicy("*.fresh.example"))
	f.expectOpen(t, lab.ResolverV4, lab.FreshName(1))
	f.awaitMapping(lab.FreshName(1))

	stopped := make(chan error, 1)
	go func() { stopped <- servers[home].Stop() }()
	f.conn = conns[other]
	for moved := false; !moved; {
		f.expectOpen(t, lab.ResolverV4, lab.FreshName(2))
		f.expectRefused(t, lab.ResolverV4, "evil.example")
		moved = f.agentState(t).GetServer() == other
	}
	f.must(<-stopped)
	f.awaitMapping(lab.FreshName(1))
	f.awaitMapping(lab.FreshName(2))
	f.put(clientPolicy("evil.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "evil.example") })
	node, err := namewardv1.NewNodeServiceClient(f.conn).GetNode(t.Context(), &namewardv1.GetNodeRequest{Name: "nodes/" + lab.NodeName})
	f.must(err)
	if node.GetStatus().GetServer() != other {
		t.Errorf("the node's status is of %s, want %s", node.GetStatus().GetServer(), other)
	}
	text, err := f.served("http://127.0.0.1:7481/metrics")
	f.must(err)
	for _, want := range []string{
		`nameward_agent_streams_ended_total{reason="asked"} 1`, `nameward_agent_streams_ended_total{reason="lost"} 0`,
		`nameward_agent_streams_ended_total{reason="failed"} 0`, "nameward_agent_moves_at_once_total 1",
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("the agent's metrics lack %s", want)
		}
	}
}
