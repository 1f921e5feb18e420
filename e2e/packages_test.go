package e2e_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/e2e/lab"
)

const agentUnit, serverUnit = "nameward-agent.service", "nameward-server.service"

// TestPackages installs the Debian packages on a machine of its own, upgrades and downgrades the agent under load,
// removes and purges them: no connection that is allowed fails, none that is denied passes, until the agent is
// removed; and the purge leaves the machine as it was.
func TestPackages(t *testing.T) {
	requireRoot(t)
	agents, err := releases()
	if err != nil {
		t.Fatal(err)
	}
	one, two := buildPackages(t, agents.this, "1.0.0"), buildPackages(t, agents.otherPrograms, "1.1.0~rc.1")
	forEachBackend(t, func(t *testing.T, backend string) {
		l := newLab(t)
		d := &debianNode{fleet: &fleet{Lab: l, t: t}, Machine: startMachine(t, l, l.Node, "node")}
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(d.said())
			}
		})
		before := d.files()
		d.installUnconfigured(one)
		d.configure(backend)

		f := d.fleet
		f.put(clientPolicy("*.fresh.example", "api.example"))
		f.expectOpen(t, lab.ResolverV4, "api.example")
		open := f.opened(t, "api.example")[:1]
		load := f.startLoad(t, func(_ netip.Addr, i int) string { return lab.FreshName(i) }, 100, 1)
		for _, step := range []struct{ what, packages string }{
			{"upgrade", two}, {"the same again", two}, {"downgrade", one},
		} {
			t.Logf("%s", step.what)
			agent, server := d.Serving(agentUnit), d.Serving(serverUnit)
			load.pass(f, 50)
			d.dpkg("-i", deb(t, step.packages, "nameward-agent"), deb(t, step.packages, "nameward-server"))
			if now := d.Serving(agentUnit); now == 0 || now == agent {
				t.Errorf("%s: process %d of the agent was followed by %d", step.what, agent, now)
			}
			if now := d.Serving(serverUnit); now == 0 || now == server {
				t.Errorf("%s: process %d of the server was followed by %d", step.what, server, now)
			}
			load.pass(f, 50)
			f.awaitCurrent()
			f.expectStillOpen(t, open)
		}
		d.stoppedStaysStopped(two, load)
		load.stop()
		load.report(t)
		t.Logf("%d names resolved and connected to, %d connections refused", load.resolved.Load(), load.refused.Load())

		d.remove()
		d.dpkg("-i", deb(t, one, "nameward-agent"))
		f.awaitCurrent() // as it was configured
		f.expectRefused(t, lab.ResolverV4, "evil.example")
		d.dpkg("--purge", "nameward-agent", "nameward-server", "namewardctl")
		f.expectOpen(t, lab.ResolverV4, "evil.example")
		if diff := cmp.Diff(before, d.files()); diff != "" {
			t.Errorf("the purge left the machine otherwise (-before +after):\n%s", diff)
		}
		d.expectNoRules()
	})
}

// debianNode is the lab's node as a Debian machine.
type debianNode struct {
	*fleet
	*lab.Machine
}

// said is what the services and systemctl said.
func (d *debianNode) said() string {
	var text strings.Builder
	for _, log := range []string{agentUnit + ".log", serverUnit + ".log", "systemctl.log"} {
		content, err := os.ReadFile(d.Path("/run/" + log))
		fmt.Fprintf(&text, "%s: %v\n%s\n", log, err, content)
	}
	return text.String()
}

func deb(t *testing.T, dir, name string) string {
	t.Helper()
	found, _ := filepath.Glob(filepath.Join(dir, name+"_*.deb"))
	if len(found) != 1 {
		t.Fatalf("packages of %s: %v", name, found)
	}
	return found[0]
}

// dpkg runs dpkg on the machine. Packages that it names are brought there.
func (d *debianNode) dpkg(args ...string) string {
	d.t.Helper()
	for i, arg := range args {
		if strings.HasSuffix(arg, ".deb") {
			content, err := os.ReadFile(arg)
			d.must(err)
			args[i] = filepath.Join("/run", filepath.Base(arg))
			d.must(os.WriteFile(d.Path(args[i]), content, 0o600))
		}
	}
	out, err := d.Run(d.t.Context(), "dpkg", args...)
	d.must(err)
	return out
}

// installUnconfigured: an installation of all packages succeeds, and nothing runs before it is configured.
func (d *debianNode) installUnconfigured(packages string) {
	d.t.Helper()
	out := d.dpkg("-i", deb(d.t, packages, "nameward-agent"), deb(d.t, packages, "nameward-server"), deb(d.t, packages, "namewardctl"))
	for _, unit := range []string{agentUnit, serverUnit} {
		if pid := d.Serving(unit); pid != 0 {
			d.t.Errorf("%s runs, and is not configured", unit)
		}
		if enabled, err := d.Run(d.t.Context(), "systemctl", "is-enabled", unit); err != nil {
			d.t.Errorf("%s is not enabled: %s", unit, enabled)
		}
	}
	if strings.Contains(out, "does not start") {
		d.t.Errorf("the installation says:\n%s", out)
	}
	log, err := os.ReadFile(d.Path("/run/systemctl.log"))
	d.must(err)
	for _, unit := range []string{agentUnit, serverUnit} {
		if !strings.Contains(string(log), unit+": skipped") {
			d.t.Errorf("%s was not skipped:\n%s", unit, log)
		}
	}
	for path, want := range map[string]string{
		"/etc/nameward/agent": "drwx------ root root", "/etc/nameward/server": "drwxr-x--- root nameward-server",
		"/etc/nameward/agent.yaml": "-rw-r--r-- root root", "/etc/nameward/server.yaml": "-rw-r--r-- root root",
		"/usr/bin/nameward-agent": "-rwxr-xr-x root root", "/usr/bin/nameward-server": "-rwxr-xr-x root root",
		"/usr/bin/namewardctl": "-rwxr-xr-x root root",
	} {
		d.expectMode(path, want)
	}
	if conffiles := d.dpkg("-s", "nameward-agent"); !strings.Contains(conffiles, "\n /etc/nameward/agent.yaml ") {
		d.t.Errorf("agent.yaml is not a configuration file of the package:\n%s", conffiles)
	}
}

func (d *debianNode) expectMode(path, want string) {
	d.t.Helper()
	got, err := d.Run(d.t.Context(), "stat", "-c", "%A %U %G", path)
	d.must(err)
	if got := strings.TrimSpace(got); got != want {
		d.t.Errorf("%s is %s, want %s", path, got, want)
	}
}

// configure writes settings beside the comments of the packages, starts both services, and waits until the node has
// in force what the server wants.
func (d *debianNode) configure(backend string) {
	d.t.Helper()
	for path, settings := range map[string]string{
		"/etc/nameward/server.yaml": "insecure: true\n",
		"/etc/nameward/agent.yaml": fmt.Sprintf("insecure: true\nserver: [%q]\nnode-name: %s\nlabel: {role: lab}\ntrusted-resolver: [%q, %q]\niptables: %s\n",
			lab.ServerAddress, lab.NodeName, lab.ResolverV4, lab.ResolverV6, backend),
	} {
		file, err := os.OpenFile(d.Path(path), os.O_APPEND|os.O_WRONLY, 0)
		d.must(err)
		_, err = file.WriteString(settings)
		d.must(err)
		d.must(file.Close())
	}
	for _, unit := range []string{serverUnit, agentUnit} {
		_, err := d.Run(d.t.Context(), "systemctl", "start", unit)
		d.must(err)
	}
	conn, err := d.DialServer()
	d.must(err)
	d.t.Cleanup(func() { _ = conn.Close() })
	d.conn = conn
	d.awaitCurrent()
	d.expectMode("/var/lib/nameward-server", "drwx------ nameward-server nameward-server")
	d.expectMode("/var/lib/nameward", "drwx------ root root")
}

// stoppedStaysStopped: an agent that the operator stopped is not started by an upgrade; what it enforced stays so.
func (d *debianNode) stoppedStaysStopped(packages string, load *load) {
	d.t.Helper()
	_, err := d.Run(d.t.Context(), "systemctl", "stop", agentUnit)
	d.must(err)
	d.dpkg("-i", deb(d.t, packages, "nameward-agent"))
	if d.Serving(agentUnit) != 0 {
		d.t.Error("the upgrade started an agent that was stopped")
	}
	load.pass(d.fleet, 50)
	_, err = d.Run(d.t.Context(), "systemctl", "start", agentUnit)
	d.must(err)
	d.awaitCurrent()
	load.pass(d.fleet, 50)
}

// remove: with the agent go its rules and pins, and what it knew; settings stay.
func (d *debianNode) remove() {
	d.t.Helper()
	d.dpkg("--remove", "nameward-agent")
	if d.Serving(agentUnit) != 0 {
		d.t.Error("the agent runs, and is removed")
	}
	d.expectOpen(d.t, lab.ResolverV4, "evil.example")
	d.expectNoRules()
	for path, stays := range map[string]bool{
		"/sys/fs/bpf/nameward": false, "/var/lib/nameward": false, "/run/nameward": false, "/usr/bin/nameward-agent": false,
		"/etc/nameward/agent.yaml": true,
	} {
		if _, err := os.Stat(d.Path(path)); (err == nil) != stays {
			d.t.Errorf("after the removal, %s: %v", path, err)
		}
	}
}

func (d *debianNode) expectNoRules() {
	d.t.Helper()
	for _, program := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		out, err := d.Run(d.t.Context(), program)
		d.must(err)
		if strings.Contains(strings.ToLower(out), "nameward") {
			d.t.Errorf("%s still shows:\n%s", program, out)
		}
	}
}

// files are those of the machine's own file system, with modes, owners and, of users and groups, contents; without
// what dpkg and others keep of what was done.
func (d *debianNode) files() []string {
	d.t.Helper()
	out, err := d.Run(d.t.Context(), "find", "/", "-xdev", "-printf", "%M %U %G %p\\n")
	d.must(err)
	lines := slices.DeleteFunc(strings.Split(out, "\n"), func(line string) bool {
		return strings.Contains(line, " /var/lib/dpkg/") || strings.Contains(line, " /var/log/") || strings.Contains(line, " /var/cache/ldconfig") ||
			strings.HasSuffix(line, "-") && strings.Contains(line, " /etc/") // backups of passwd and its like
	})
	for _, path := range []string{"/etc/passwd", "/etc/group"} {
		content, err := fs.ReadFile(os.DirFS(d.Root), path[1:])
		d.must(err)
		lines = append(lines, strings.Split(string(content), "\n")...)
	}
	slices.Sort(lines)
	return lines
}

// TestPackagesAreReproducible: the same programs give the same bytes, wherever and whenever they are packed.
func TestPackagesAreReproducible(t *testing.T) {
	requireRoot(t)
	var packed [2]map[string][]byte
	for i := range packed {
		packed[i] = map[string][]byte{}
		dir := buildPackages(t, filepath.Join(programs, "nameward-agent"), "1.0.0")
		for _, name := range []string{"nameward-agent", "nameward-server", "namewardctl"} {
			content, err := os.ReadFile(deb(t, dir, name))
			if err != nil {
				t.Fatal(err)
			}
			packed[i][name] = content
		}
	}
	for name := range packed[0] {
		if !bytes.Equal(packed[0][name], packed[1][name]) {
			t.Errorf("%s differs", name)
		}
	}
}
