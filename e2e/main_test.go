// Package e2e shows the promises of the README: the programs run as processes on the real kernel, with
// real iptables and a real DNS server, in network namespaces. One file a promise.
package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// programs is the directory that has the programs, the ones that tests build of their own among them.
// TestMain makes it, unless a machine without a compiler is given one.
var programs string

var prebuilt = flag.String("programs", "", "a directory that has the programs, which are then not built")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // each test says that it needs root
	}
	if programs = *prebuilt; programs != "" {
		return m.Run()
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

// newLab builds a lab, and has the test run beside others from there on: whatever a lab is made of is its
// own. When the test fails, it shows what the programs said.
func newLab(t *testing.T) *lab.Lab {
	t.Helper()
	requireRoot(t)
	t.Parallel()
	return buildLab(t)
}

// newLabAlone builds a lab for a test that no other runs beside, and says why.
func newLabAlone(t *testing.T, why string) *lab.Lab {
	t.Helper()
	requireRoot(t)
	t.Logf("alone: %s", why)
	return buildLab(t)
}

func buildLab(t *testing.T) *lab.Lab {
	t.Helper()
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
	f := newServer(t, newLab(t), agentFlags...)
	f.startAgent()
	return f
}

// newFleetAlone starts them for a test that no other runs beside, and says why.
func newFleetAlone(t *testing.T, why string, agentFlags ...string) *fleet {
	t.Helper()
	f := newServer(t, newLabAlone(t, why), agentFlags...)
	f.startAgent()
	return f
}

// newServer starts the server in a lab, for an agent that is started with such flags.
func newServer(t *testing.T, l *lab.Lab, agentFlags ...string) *fleet {
	t.Helper()
	f := &fleet{Lab: l, t: t, agentFlags: agentFlags}
	f.startServer()
	conn, err := f.DialServer()
	f.must(err)
	f.t.Cleanup(func() { _ = conn.Close() })
	f.conn = conn
	return f
}

// backends are iptables' own, by the names of the agent's flag.
var backends = []string{"nft", "legacy"}

// forEachBackend runs a test on both, beside others.
func forEachBackend(t *testing.T, test func(t *testing.T, backend string)) {
	t.Helper()
	t.Parallel()
	for _, backend := range backends {
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

// counters returns what the node counted, as the agent shows it, once it satisfies a condition.
func (f *fleet) counters(enough func(map[string]uint64) bool) map[string]uint64 {
	f.t.Helper()
	conn, err := f.DialAgent()
	f.must(err)
	defer conn.Close() //nolint:errcheck // read only
	return f.awaitCounters(enough, func() (*namewardv1.Node, error) {
		status, err := agentv1.NewLocalServiceClient(conn).GetStatus(f.t.Context(), &agentv1.GetStatusRequest{})
		return status.GetNode(), err
	})
}

// countersUpstream returns the same as the server shows it, which hears of them every few seconds.
func (f *fleet) countersUpstream(enough func(map[string]uint64) bool) map[string]uint64 {
	f.t.Helper()
	return f.awaitCounters(enough, func() (*namewardv1.Node, error) {
		return namewardv1.NewNodeServiceClient(f.conn).GetNode(f.t.Context(), &namewardv1.GetNodeRequest{Name: "nodes/" + lab.NodeName})
	})
}

func (f *fleet) awaitCounters(enough func(map[string]uint64) bool, ask func() (*namewardv1.Node, error)) map[string]uint64 {
	f.t.Helper()
	var counters map[string]uint64
	f.must(lab.Await(f.t.Context(), func() error {
		node, err := ask()
		if err != nil {
			return err
		}
		if counters = node.GetStatus().GetCounters(); !enough(counters) {
			return fmt.Errorf("counters: %v", counters)
		}
		return nil
	}, nil))
	return counters
}

// iptables changes the node's rules. The lock for which it waits is the machine's.
func (f *fleet) iptables(t *testing.T, program, change string) {
	t.Helper()
	if out, err := f.command(t.Context(), program, append([]string{"-w"}, strings.Fields(change)...)...); err != nil {
		t.Fatalf("%s %s: %v\n%s", program, change, err, out)
	}
}

// command runs a program on the node and returns what it printed, on both outputs.
func (f *fleet) command(ctx context.Context, name string, args ...string) (string, error) {
	out, err := f.Node.Command(ctx, name, args...).CombinedOutput()
	return string(out), err
}
