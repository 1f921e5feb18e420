package e2e_test

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestUnitEnforces: under the capabilities, system calls, address families and read-only files of its unit,
// the agent says READY once it enforces, enforces, mends, cuts, and at its next start adopts what is there.
// What needs systemd itself is not tried here: deployments/README.md names it.
func TestUnitEnforces(t *testing.T) {
	buildConfine(t)
	u := readUnit(t, "nameward-agent.service")
	forEachBackend(t, func(t *testing.T, backend string) {
		f := &fleet{Lab: newLab(t), t: t}
		f.startServer()
		conn, err := f.DialServer()
		f.must(err)
		t.Cleanup(func() { _ = conn.Close() })
		f.conn = conn
		stop := f.startConfined(u, backend)
		f.awaitCurrent()
		policy := clientPolicy("api.example")
		policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Uid: proto32(4242)}, &namewardv1.Workload{Cgroup: "/nameward-none"})
		f.put(policy)
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			f.expectOpen(t, resolver, "api.example")
			f.expectRefused(t, resolver, "evil.example")
		})
		f.expectWell(t)
		for _, program := range []string{"iptables-" + backend, "ip6tables-" + backend} {
			if out, err := f.command(t.Context(), program, "-w", "-t", "mangle", "-F"); err != nil {
				t.Fatalf("%s: %v\n%s", program, err, out)
			}
		}
		f.counters(func(map[string]uint64) bool {
			for _, program := range []string{"iptables-" + backend + "-save", "ip6tables-" + backend + "-save"} {
				if out, err := f.command(t.Context(), program, "-t", "mangle"); err != nil || !strings.Contains(out, "-A PREROUTING") {
					return false
				}
			}
			return true
		})
		stop()
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectRefused(t, resolver, "evil.example") })
		stop = f.startConfined(u, backend)
		f.awaitCurrent()
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			f.expectOpen(t, resolver, "api.example")
			f.expectRefused(t, resolver, "evil.example")
		})
		f.expectWell(t)
		stop()
	})
}

// startConfined starts the agent as its unit does, and waits until it says that it is ready.
func (f *fleet) startConfined(u unit, backend string) (stop func()) {
	f.t.Helper()
	path := filepath.Join(f.Dir, "notify.sock")
	_ = os.Remove(path)
	heard, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	f.must(err)
	defer heard.Close() //nolint:errcheck // all was heard
	log, err := os.OpenFile(filepath.Join(f.Dir, "nameward-agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	f.must(err)
	defer log.Close() //nolint:errcheck // the process has its own
	command := confined(f.t, f.Lab, u, "", append(append([]string{"run"}, f.AgentFlags()...), "--iptables", backend)...)
	command.Env = append(os.Environ(), "NOTIFY_SOCKET="+path)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	f.must(command.Start())
	stop = func() {
		_ = command.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = command.Wait()
	}
	f.t.Cleanup(stop)
	message := make([]byte, 4096)
	f.must(heard.SetReadDeadline(time.Now().Add(lab.Patience)))
	n, err := heard.Read(message)
	if err != nil || !strings.HasPrefix(string(message[:n]), "READY=1\n") {
		f.t.Fatalf("heard %q, %v; want READY=1", message[:n], err)
	}
	f.expectConfined(u, command.Process.Pid)
	// Ready is said when the rules stand, not before.
	if out, err := f.command(f.t.Context(), "ip6tables-"+backend+"-save", "-t", "filter"); err != nil || !strings.Contains(out, "-A OUTPUT") {
		f.t.Errorf("ready, and the rules do not stand: %v\n%s", err, out)
	}
	return stop
}

// expectConfined fails the test unless the kernel says of the agent that it is under what the unit says.
func (f *fleet) expectConfined(u unit, pid int) {
	f.t.Helper()
	var mask uint64
	for _, name := range u.words("Service", "CapabilityBoundingSet") {
		mask |= 1 << capabilities[name]
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	f.must(err)
	for _, want := range []string{
		"Name:\tnameward-agent", fmt.Sprintf("CapBnd:\t%016x", mask), fmt.Sprintf("CapEff:\t%016x", mask), "NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !strings.Contains(string(status), want+"\n") {
			f.t.Errorf("the kernel does not say %q of the agent:\n%s", want, status)
		}
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", pid))
	f.must(err)
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); fields[1] == "/" && !strings.HasPrefix(fields[3], "ro") {
			f.t.Errorf("the root directory can be written: %s", line)
		}
	}
}

// expectWell fails the test when the agent is degraded.
func (f *fleet) expectWell(t *testing.T) {
	t.Helper()
	socket, err := f.DialAgent()
	f.must(err)
	defer socket.Close() //nolint:errcheck // asked once
	status, err := agentv1.NewLocalServiceClient(socket).GetStatus(t.Context(), &agentv1.GetStatusRequest{})
	if err != nil || len(status.GetDegraded()) > 0 {
		t.Errorf("degraded: %q, %v", status.GetDegraded(), err)
	}
}

func proto32(n uint32) *uint32 { return &n }

// TestUnitCapabilitiesAreNeeded: with those of the unit the preflight passes; without any one of them it does
// not, and names it, and what it was for fails.
func TestUnitCapabilitiesAreNeeded(t *testing.T) {
	buildConfine(t)
	u, l := readUnit(t, "nameward-agent.service"), newLab(t)
	fails := map[string]struct {
		backend string
		lines   []string // of the table
	}{
		"CAP_BPF":       {"nft", []string{"map types ", "program load "}},
		"CAP_PERFMON":   {"nft", []string{"helpers ", "program load "}},
		"CAP_NET_ADMIN": {"nft", []string{"iptables ", "connection table "}},
		"CAP_NET_RAW":   {"legacy", []string{"iptables "}},
	}
	granted := u.words("Service", "CapabilityBoundingSet")
	if len(granted) != len(fails) {
		t.Errorf("the unit grants %v; each of them has a test here, which says why", granted)
	}
	check := func(without, backend string) (string, error) {
		out, err := confined(t, l, u, without, append(append([]string{"check"}, l.AgentFlags()...), "--iptables", backend)...).CombinedOutput()
		return string(out), err
	}
	for _, backend := range backends {
		if out, err := check("", backend); err != nil || strings.Contains(out, "FAILED") {
			t.Errorf("all of them, %s: %v\n%s", backend, err, out)
		}
	}
	for _, capability := range granted {
		t.Run("without "+capability, func(t *testing.T) {
			out, err := check(capability, fails[capability].backend)
			if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 { //nolint:errorlint // not wrapped
				t.Errorf("got %v, want exit status 1\n%s", err, out)
			}
			if !strings.Contains(out, capability+" is missing") {
				t.Errorf("%s is not named:\n%s", capability, out)
			}
			for _, line := range fails[capability].lines {
				if !slices.ContainsFunc(strings.Split(out, "\n"), func(text string) bool {
					return strings.HasPrefix(text, line) && strings.Contains(text, "FAILED")
				}) {
					t.Errorf("%q has not failed:\n%s", line, out)
				}
			}
		})
	}
	t.Run("without CAP_NET_RAW, nft", func(t *testing.T) {
		if out, err := check("CAP_NET_RAW", "nft"); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

// TestUnitsAreSound: systemd takes the units as they are, finds them closed, and starts the agent before the
// network.
func TestUnitsAreSound(t *testing.T) {
	requireRoot(t)
	agent := readUnit(t, "nameward-agent.service")
	for key, want := range map[string]string{"Before": "network-pre.target", "Wants": "network-pre.target", "DefaultDependencies": "no"} {
		if !slices.Contains(agent.words("Unit", key), want) {
			t.Errorf("%s=%v lacks %s", key, agent.words("Unit", key), want)
		}
	}
	for key, want := range map[string]string{"Type": "notify", "NoNewPrivileges": "yes", "StateDirectoryMode": "0700", "UMask": "0077"} {
		if got := agent.words("Service", key); len(got) != 1 || got[0] != want {
			t.Errorf("%s=%v, want %s", key, got, want)
		}
	}
	// In tenths of what systemd calls exposure.
	for name, exposure := range map[string]string{"nameward-agent.service": "25", "nameward-server.service": "15"} {
		content, err := os.ReadFile(filepath.Join(units, name))
		if err != nil {
			t.Fatal(err)
		}
		// The programs are not installed here.
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(content), "/usr/bin/", programs+"/")), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range [][]string{
			{"verify", "--man=no", path}, {"security", "--no-pager", "--offline=true", "--threshold=" + exposure, path},
		} {
			out, err := exec.Command("systemd-analyze", command...).CombinedOutput()
			if err != nil || command[0] == "verify" && len(out) > 0 {
				t.Errorf("systemd-analyze %s: %v\n%s", strings.Join(command, " "), err, out)
			}
		}
	}
}
