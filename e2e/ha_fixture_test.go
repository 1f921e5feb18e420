package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/cluster"
	fleets "github.com/nameward/nameward/e2e/fleet"
)

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
