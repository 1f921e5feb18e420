package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/e2e/lab"
)

// TestWorkloads: the other ways of selecting a workload.
func TestWorkloads(t *testing.T) {
	f := newFleet(t)
	tests := []struct {
		fact      string
		workload  *namewardv1.Workload
		namespace *lab.Namespace
	}{
		{"by interface", &namewardv1.Workload{Interface: "client0"}, f.Client},
		{"by the beginning of an interface's name", &namewardv1.Workload{Interface: "cli+"}, f.Client},
		{"by interface and source together", &namewardv1.Workload{Interface: "client0", Cidrs: []string{"10.91.1.0/24", "fd91:1::/64"}}, f.Client},
		{"the node's own processes", &namewardv1.Workload{Host: true}, f.Node},
	}
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			policy := clientPolicy("api.example")
			policy.Workloads = []*namewardv1.Workload{test.workload}
			f.put(policy)
			forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
				for name, refused := range map[string]bool{"api.example": false, "evil.example": true} {
					addresses, err := test.namespace.Resolve(resolver, name)
					if err != nil {
						t.Fatalf("resolve %s: %v", name, err)
					}
					if err := test.namespace.Connect(addresses[0], lab.ServicePort); lab.Refused(err) != refused || !refused && err != nil {
						t.Errorf("connect to %s: got %v, want refused: %v", name, err, refused)
					}
				}
			})
		})
	}
}

// processes are the control groups of a test. Directories stand in for what systemd makes: it gives each
// unit one of its name below its slice, and a new one at each start.
type processes struct {
	*fleet
	*bpftest.Cgroups
	slice, other string // two slices, by their paths
	unit         string // a unit, by its name
}

func newProcesses(t *testing.T, agentFlags ...string) *processes {
	t.Helper()
	p := &processes{fleet: newFleetAlone(t, "it moves this process between control groups", agentFlags...), Cgroups: bpftest.NewCgroups(t)}
	p.slice, p.other = fmt.Sprintf("/nw%d.slice", os.Getpid()), fmt.Sprintf("/nwother%d.slice", os.Getpid())
	p.unit = fmt.Sprintf("nw%d.service", os.Getpid())
	return p
}

// policyFor lets what a workload selects reach api.example, and nothing else.
func policyFor(workload *namewardv1.Workload) *namewardv1.Policy {
	policy := clientPolicy("api.example")
	policy.Workloads = []*namewardv1.Workload{workload}
	return policy
}

// expect connects from the node, as a user and from a control group, which is made if need be.
func (p *processes) expect(t *testing.T, uid int, cgroup string, selected bool) {
	t.Helper()
	p.Make(cgroup)
	p.Enter(cgroup)
	defer p.Leave()
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		for name, refused := range map[string]bool{"api.example": false, "evil.example": selected} {
			if err := p.connectTo(resolver, name, uid); lab.Refused(err) != refused || !refused && err != nil {
				t.Errorf("user %d in %s connects to %s: got %v, want refused: %v", uid, cgroup, name, err, refused)
			}
		}
	})
}

func (p *processes) connectTo(resolver netip.Addr, name string, uid int) error {
	from := p.Node.As(uid)
	addresses, err := from.Resolve(resolver, name)
	if err != nil {
		return fmt.Errorf("resolve: %w", err)
	}
	return from.Connect(addresses[0], lab.ServicePort)
}

// TestProcesses: a workload selects the node's own processes by what all of its fields say, and no others.
func TestProcesses(t *testing.T) {
	for _, backend := range backends {
		t.Run(backend, func(t *testing.T) { testProcesses(t, backend) })
	}
}

func testProcesses(t *testing.T, backend string) {
	p := newProcesses(t, "--iptables", backend)
	unit := p.slice + "/" + p.unit
	type actor struct {
		uid    int
		cgroup string
	}
	for _, test := range []struct {
		fact     string
		workload *namewardv1.Workload
		in, out  []actor
	}{
		{"by user", &namewardv1.Workload{Uid: proto.Uint32(1000)}, []actor{{1000, "/"}}, []actor{{1001, "/"}, {0, "/"}}},
		{"root", &namewardv1.Workload{Uid: proto.Uint32(0)}, []actor{{0, "/"}}, []actor{{1000, "/"}}},
		{"by control group and below", &namewardv1.Workload{Cgroup: p.slice}, []actor{{0, p.slice}, {1000, p.slice + "/job/1"}}, []actor{{0, p.other}, {0, "/"}}},
		{
			"by unit and below", &namewardv1.Workload{SystemdUnit: p.unit},
			[]actor{{0, unit}, {0, unit + "/sub"}, {0, p.other + "/" + p.unit}},
			[]actor{{0, p.slice + "/else.service/" + p.unit}, {0, p.slice + "/x/" + p.unit}, {0, "/"}},
		},
		{"by unit, a slice", &namewardv1.Workload{SystemdUnit: p.slice[1:]}, []actor{{0, unit}}, []actor{{0, p.other}}},
		{
			"by all at once", &namewardv1.Workload{Uid: proto.Uint32(1000), Cgroup: p.slice, SystemdUnit: p.unit},
			[]actor{{1000, unit}},
			[]actor{{0, unit}, {1000, p.slice}, {1000, p.other + "/" + p.unit}},
		},
	} {
		t.Run(test.fact, func(t *testing.T) {
			p.put(policyFor(test.workload))
			for _, a := range test.in {
				p.expect(t, a.uid, a.cgroup, true)
			}
			for _, a := range test.out {
				p.expect(t, a.uid, a.cgroup, false)
			}
		})
	}
}

// TestUnionOfWorkloads: the rules of all policies that select a process decide, in their order.
func TestUnionOfWorkloads(t *testing.T) {
	p := newProcesses(t)
	host := policyFor(&namewardv1.Workload{Host: true})
	user := clientPolicy("evil.example")
	user.Name, user.Priority, user.Workloads = "policies/user", 1, []*namewardv1.Workload{{Uid: proto.Uint32(1000)}, {Cgroup: p.slice}}
	p.put(host)
	p.put(user)
	p.expect(t, 0, "/", true)
	p.expect(t, 1000, "/", false)
	p.expect(t, 0, p.slice, false)
	denying := policyFor(&namewardv1.Workload{SystemdUnit: p.unit})
	denying.Name, denying.Priority = "policies/unit", -1
	denying.Rules = []*namewardv1.Rule{{Action: namewardv1.Rule_DENY, Domains: []string{"evil.example"}}}
	p.put(denying)
	p.expect(t, 1000, p.slice+"/"+p.unit, true)
	p.expect(t, 1000, p.slice, false)
}

// TestUnitRestarts: a unit is known with its first connection, whenever and wherever it starts, whether
// the agent lives or not.
func TestUnitRestarts(t *testing.T) {
	p := newProcesses(t)
	p.put(policyFor(&namewardv1.Workload{SystemdUnit: p.unit}))
	p.expect(t, 0, p.slice, false)
	for _, slice := range []string{p.slice, p.other, p.slice, p.slice} {
		p.expect(t, 0, slice+"/"+p.unit, true)
		p.Remove(slice + "/" + p.unit)
	}
	p.must(p.agent.Kill())
	for _, slice := range []string{p.other, p.slice} {
		p.expect(t, 0, slice+"/"+p.unit, true)
		p.Remove(slice + "/" + p.unit)
	}
	p.expect(t, 0, p.slice, false)
	p.startAgent()
	p.expect(t, 0, p.other+"/"+p.unit, true)
	p.expect(t, 0, p.other, false)
}

// TestFirstConnectionOfAUnit: a process that is started in a control group is in it from its first
// instruction, and there is no moment at which it could connect.
func TestFirstConnectionOfAUnit(t *testing.T) {
	p := newProcesses(t)
	p.put(policyFor(&namewardv1.Workload{Uid: proto.Uint32(1000), SystemdUnit: p.unit}))
	for name, refused := range map[string]bool{"api.example": false, "evil.example": true} {
		addresses, err := p.Node.Resolve(lab.ResolverV4, name)
		p.must(err)
		cgroup := p.slice + "/" + p.unit
		p.Make(cgroup)
		dir, err := os.Open(p.Dir(cgroup))
		p.must(err)
		script := fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", addresses[0], lab.ServicePort)
		command := exec.CommandContext(t.Context(), "nsenter", "--net=/run/netns/"+p.Node.Name, "--setuid=1000", "--", "bash", "-c", script)
		command.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		out, err := command.CombinedOutput()
		_ = dir.Close()
		if (err != nil) != refused || refused && !strings.Contains(string(out), "refused") {
			t.Errorf("%s: got %v, want refused: %v\n%s", name, err, refused, out)
		}
		p.Remove(cgroup)
	}
}

// TestMovedProcess: a connection is of the control group in which its socket was made.
func TestMovedProcess(t *testing.T) {
	p := newProcesses(t)
	p.put(policyFor(&namewardv1.Workload{Cgroup: p.slice}))
	evil := p.opened(t, "evil.example")[0]
	p.Make(p.slice)
	var before, after int
	socket := func(fd *int) error {
		return p.Node.Do(func() (err error) {
			*fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			return err
		})
	}
	connect := func(fd int) error {
		defer unix.Close(fd) //nolint:errcheck // connected or not
		return unix.Connect(fd, &unix.SockaddrInet4{Port: lab.ServicePort, Addr: evil.As4()})
	}
	p.must(socket(&before))
	p.Enter(p.slice)
	p.must(socket(&after))
	p.Leave()
	if err := connect(before); err != nil {
		t.Errorf("a socket that was made before: %v", err)
	}
	if err := connect(after); !lab.Refused(err) {
		t.Errorf("a socket that was made in the group: got %v, want refused", err)
	}
}

// TestRefusedQuestionOfProcesses: a question is refused to the workload that a policy selects.
func TestRefusedQuestionOfProcesses(t *testing.T) {
	p := newProcesses(t)
	policy := refusingPolicy()
	policy.Workloads = []*namewardv1.Workload{{Uid: proto.Uint32(1000)}, {SystemdUnit: p.unit}}
	p.put(policy)
	cgroup := p.slice + "/" + p.unit
	p.Make(cgroup)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		expectUnasked(t, p.Node.As(1000), resolver, "evil.example")
		expectResolved(t, p.Node.As(1000), resolver, "api.example")
		expectResolved(t, p.Node.As(1001), resolver, "evil.example")
		p.Enter(cgroup)
		defer p.Leave()
		expectUnasked(t, p.Node, resolver, "evil.example")
		expectResolved(t, p.Node, resolver, "api.example")
	})
}

// TestProcessesAreExplained: explain says what the kernel does, and flow events tell the user.
func TestProcessesAreExplained(t *testing.T) {
	p := newProcesses(t)
	p.put(policyFor(&namewardv1.Workload{Uid: proto.Uint32(1000), SystemdUnit: p.unit}))
	p.expect(t, 1000, p.slice+"/"+p.unit, true)
	for workload, denied := range map[string]bool{
		"host": false, "uid:1000": false, "unit:" + p.unit: false, "uid:1000,unit:" + p.unit: true,
		"uid:1000,cgroup:" + p.slice + "/" + p.unit + "/x": true, "uid:1001,cgroup:" + p.slice + "/" + p.unit: false,
	} {
		request := &namewardv1.ExplainConnectionRequest{Node: "nodes/" + lab.NodeName, Workload: workload, Destination: "evil.example", Port: lab.ServicePort}
		answer, err := namewardv1.NewNodeServiceClient(p.conn).ExplainConnection(context.Background(), request)
		if err != nil || (answer.GetVerdict() == namewardv1.Verdict_DENY) != denied {
			t.Errorf("%s: got %v, %v, want denied: %v", workload, answer.GetVerdict(), err, denied)
		}
	}
	evil := p.opened(t, "evil.example")
	p.awaitFlows(t, nil,
		fmt.Sprintf("1× DENY ENFORCE uid:1000 → %s %d/TCP [evil.example]: NO_RULE", evil[0], lab.ServicePort),
		fmt.Sprintf("1× DENY ENFORCE uid:1000 → %s %d/TCP [evil.example]: NO_RULE", evil[1], lab.ServicePort))
}
