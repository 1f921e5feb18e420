// Package e2e shows the promises of the README: the programs run as processes on the real kernel, with
// real iptables and a real DNS server, in network namespaces. One file a promise.
package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// programs is the directory that TestMain builds the programs into.
var programs string

func TestMain(m *testing.M) {
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // each test says that it needs root
	}
	dir, err := os.MkdirTemp("", "nameward-programs-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir) //nolint:errcheck // the last thing done
	programs = dir
	if out, err := exec.Command("go", "build", "-o", dir, "../cmd/...").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the programs: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// requireRoot skips a test on a machine where it cannot run, and fails it where it must.
func requireRoot(t *testing.T) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("REQUIRE_PRIVILEGED") == "1":
		t.Fatal("this test needs root")
	default:
		t.Skip("this test needs root")
	}
}

// newLab builds a lab; when the test fails, it shows what the programs said.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	requireRoot(t)
	l, err := lab.New(t.Context(), programs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"nameward-server", "nameward-agent"} {
				log, _ := os.ReadFile(filepath.Join(l.Dir, name+".log"))
				t.Logf("%s:\n%s", name, log)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// fleet is a lab in which server and agent run.
type fleet struct {
	*lab.Lab
	t             *testing.T
	conn          *grpc.ClientConn
	server, agent *lab.Process
	agentFlags    []string
}

// newFleet starts server and agent in a lab of their own.
func newFleet(t *testing.T, agentFlags ...string) *fleet {
	t.Helper()
	f := &fleet{Lab: newLab(t), t: t, agentFlags: agentFlags}
	f.begin()
	return f
}

// begin starts server and agent.
func (f *fleet) begin() {
	f.t.Helper()
	f.startServer()
	conn, err := f.DialServer()
	f.must(err)
	f.t.Cleanup(func() { _ = conn.Close() })
	f.conn = conn
	f.startAgent()
}

// forEachBackend runs a test on both iptables backends.
func forEachBackend(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range []string{"nft", "legacy"} {
		t.Run(backend, func(t *testing.T) { test(t, backend) })
	}
}

// forEachFamily runs a test with a resolver, client and destinations of each address family.
func forEachFamily(t *testing.T, test func(t *testing.T, resolver netip.Addr)) {
	t.Run("ipv4", func(t *testing.T) { test(t, lab.ResolverV4) })
	t.Run("ipv6", func(t *testing.T) { test(t, lab.ResolverV6) })
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f *fleet) startServer() {
	f.t.Helper()
	var err error
	f.server, err = f.StartServer(f.t.Context())
	f.must(err)
}

func (f *fleet) startAgent() {
	f.t.Helper()
	var err error
	f.agent, err = f.StartAgent(f.t.Context(), f.agentFlags...)
	f.must(err)
}

// put stores a policy, and waits until the node has it in force.
func (f *fleet) put(policy *namewardv1.Policy) *namewardv1.Policy {
	f.t.Helper()
	stored, err := namewardv1.NewPolicyServiceClient(f.conn).UpdatePolicy(f.t.Context(), &namewardv1.UpdatePolicyRequest{
		Policy: policy, UpdateMask: allFields, AllowMissing: true,
	})
	f.must(err)
	f.awaitCurrent()
	return stored
}

// awaitCurrent waits until the node has in force what the server wants of it.
func (f *fleet) awaitCurrent() {
	f.t.Helper()
	f.must(lab.Await(f.t.Context(), func() error { return f.Current(f.t.Context(), f.conn) }, nil))
}

// expectOpen fails the test unless the name resolves and its addresses open at once.
func (f *fleet) expectOpen(t *testing.T, resolver netip.Addr, name string) {
	t.Helper()
	addresses, err := f.Resolve(resolver, name)
	if err != nil {
		t.Fatalf("resolve %s: %v", name, err)
	}
	for _, address := range addresses {
		if err := f.Connect(address, lab.ServicePort); err != nil {
			t.Errorf("connect to %s (%s) right after its answer: %v", name, address, err)
		}
	}
}

// expectRefused fails the test unless the name resolves and its addresses are refused at once.
func (f *fleet) expectRefused(t *testing.T, resolver netip.Addr, name string) {
	t.Helper()
	addresses, err := f.Resolve(resolver, name)
	if err != nil {
		t.Fatalf("resolve %s: %v", name, err)
	}
	for _, address := range addresses {
		if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
			t.Errorf("connect to %s (%s): got %v, want refused at once", name, address, err)
		}
	}
}

// counters returns what the node counted, as the server shows it, once they satisfy a condition.
func (f *fleet) counters(enough func(map[string]uint64) bool) map[string]uint64 {
	f.t.Helper()
	var counters map[string]uint64
	f.must(lab.Await(f.t.Context(), func() error {
		node, err := namewardv1.NewNodeServiceClient(f.conn).GetNode(f.t.Context(), &namewardv1.GetNodeRequest{Name: "nodes/" + lab.NodeName})
		if err != nil {
			return err
		}
		if counters = node.GetStatus().GetCounters(); !enough(counters) {
			return fmt.Errorf("counters upstream: %v", counters)
		}
		return nil
	}, nil))
	return counters
}

// command runs a program on the node and returns what it printed, on both outputs.
func (f *fleet) command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := f.Node.Command(ctx, name, args...).CombinedOutput()
	return string(out), err
}
