package dataplane

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/dataplane/preflight"
)

// TestDegraded: each fault that persists shows in the status, with a remedy, and in the health of the whole;
// the agent is alive all the while, and well again once the fault is over.
func TestDegraded(t *testing.T) {
	conditions := []struct {
		fact       string
		break_, ok func(cfg Config, n *fakeNode) error
		says       string
	}{
		{
			"rules do not stand",
			func(_ Config, n *fakeNode) error { n.hooks.Fail(errors.New("no iptables")); return nil },
			func(_ Config, n *fakeNode) error { n.hooks.Fail(nil); return nil },
			"no iptables",
		},
		{
			"a journal that is not written",
			func(_ Config, n *fakeNode) error { n.setFault(errors.New("write journal: no space")); return nil },
			func(_ Config, n *fakeNode) error { n.setFault(nil); return nil },
			"write journal: no space",
		},
	}
	for _, c := range conditions {
		t.Run(c.fact, func(t *testing.T) {
			cfg, n := testConfig(t, "127.0.0.1:1"), newFakeNode()
			startAgent(t, cfg, n)
			watch := watchHealth(t, cfg)
			watch(healthv1.HealthCheckResponse_SERVING)
			if err := c.break_(cfg, n); err != nil {
				t.Fatal(err)
			}
			watch(healthv1.HealthCheckResponse_NOT_SERVING)
			expectDegraded(t, cfg, c.says)
			if err := c.ok(cfg, n); err != nil {
				t.Fatal(err)
			}
			watch(healthv1.HealthCheckResponse_SERVING)
		})
	}
	t.Run("a rule set that does not fit", func(t *testing.T) {
		address, server := startServer(t, someRules())
		cfg, n := testConfig(t, address), newFakeNode()
		n.maps.Fail(errors.New("map is full"))
		startAgent(t, cfg, n)
		server.await(t, "nack", func(r *agentv1.SyncRequest) bool { return r.GetNack() != nil })
		expectDegraded(t, cfg, "map is full")
		watchHealth(t, cfg)(healthv1.HealthCheckResponse_NOT_SERVING)
	})
	t.Run("a rule set that is not saved", func(t *testing.T) {
		address, server := startServer(t, someRules())
		cfg, n := testConfig(t, address), newFakeNode()
		// Nothing is saved before the rules stand: time to take the directory away.
		n.hooks.Fail(errors.New("no iptables"))
		startAgent(t, cfg, n)
		server.await(t, "hello", func(r *agentv1.SyncRequest) bool { return r.GetHello() != nil })
		if err := os.Rename(cfg.StateDir, cfg.StateDir+".away"); err != nil {
			t.Fatal(err)
		}
		n.hooks.Fail(nil)
		expectDegraded(t, cfg, "save rule set")
	})
	t.Run("rules of others in the way", func(t *testing.T) {
		cfg, n := testConfig(t, "127.0.0.1:1"), newFakeNode()
		n.way = []Requirement{preflight.Fail("mark bit 0x10000000", "set by others", "choose another"), preflight.Warn("iptables backends", "both", "one")}
		startAgent(t, cfg, n)
		expectDegraded(t, cfg, "mark bit 0x10000000: set by others. Remedy: choose another")
	})
	t.Run("no server", func(t *testing.T) {
		cfg := testConfig(t, "127.0.0.1:1")
		startAgent(t, cfg, newFakeNode())
		expectDegraded(t, cfg, "not connected to a policy server")
		// Enforcement is whole: nothing is to be restarted, and nobody to be called.
		watchHealth(t, cfg)(healthv1.HealthCheckResponse_SERVING)
	})
}

func (n *fakeNode) setFault(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = err
}

// expectDegraded waits until one fault persists that says so, and how to mend it.
func expectDegraded(t *testing.T, cfg Config, says string) {
	t.Helper()
	client := localClient(t, cfg)
	var degraded []string
	for end := time.Now().Add(patient); time.Now().Before(end); {
		status, err := client.GetStatus(t.Context(), &agentv1.GetStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		degraded = status.GetDegraded()
		for _, fault := range degraded {
			if strings.Contains(fault, says) && strings.Contains(fault, "Remedy: ") {
				return
			}
		}
	}
	t.Errorf("degraded %q, want %q with a remedy", degraded, says)
}

// watchHealth returns a function that waits until the health of the whole is as wanted.
func watchHealth(t *testing.T, cfg Config) func(want healthv1.HealthCheckResponse_ServingStatus) {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	stream, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return func(want healthv1.HealthCheckResponse_ServingStatus) {
		t.Helper()
		for {
			got, err := stream.Recv()
			if err != nil {
				t.Fatalf("wait until health is %v: %v", want, err)
			}
			if got.GetStatus() == want {
				return
			}
		}
	}
}

// TestNotify: the service manager hears that the agent is ready once its rules stand, not before, and that it
// ends.
func TestNotify(t *testing.T) {
	cfg, n := testConfig(t, "127.0.0.1:1"), newFakeNode()
	cfg.NotifySocket = filepath.Join(t.TempDir(), "notify")
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: cfg.NotifySocket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer heard.Close()
	expect := func(want string) {
		t.Helper()
		message := make([]byte, 4096)
		_ = heard.SetReadDeadline(time.Now().Add(patient))
		length, err := heard.Read(message)
		if err != nil || !strings.HasPrefix(string(message[:length]), want) {
			t.Fatalf("heard %q, %v; want %q", message[:length], err, want)
		}
	}
	n.hooks.Fail(errors.New("no iptables"))
	stop := startAgent(t, cfg, n)
	expect("STATUS=ensure packet filter rules: no iptables")
	n.hooks.Fail(nil)
	expect("READY=1\n")
	stop()
	expect("STOPPING=1\n")
}

// TestFilesAreForTheirOwnerAlone: what the agent keeps may be read by nobody else.
func TestFilesAreForTheirOwnerAlone(t *testing.T) {
	address, server := startServer(t, someRules())
	cfg := testConfig(t, address)
	startAgent(t, cfg, newFakeNode())
	server.await(t, "ack", func(r *agentv1.SyncRequest) bool { return r.GetAck() != nil })
	want := map[string]string{cfg.StateDir: "drwx------", cfg.Socket: "Srw-------", cfg.BPFDir: "drwx------"}
	for _, file := range []string{"agent.lock", "rule-set"} {
		want[filepath.Join(cfg.StateDir, file)] = "-rw-------"
	}
	for path, mode := range want {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := fmt.Sprint(info.Mode()); got != mode {
			t.Errorf("%s has mode %s, want %s", path, got, mode)
		}
	}
}
