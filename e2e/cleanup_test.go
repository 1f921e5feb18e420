package e2e_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// TestCleanup: SIGTERM leaves everything in force; cleanup leaves no rule, chain, pin or file, and other
// programs' rules as they were.
func TestCleanup(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		save := "iptables-" + backend + "-save"
		f.iptables(t, "iptables-"+backend, "-t filter -A FORWARD -s 203.0.113.9 -j ACCEPT -m comment --comment neighbour")
		f.put(clientPolicy("api.example"))
		cleanup := append(append([]string{"cleanup"}, f.AgentFlags()...), "--iptables", backend)
		if out, err := f.command(t.Context(), f.Program("nameward-agent"), cleanup...); err == nil {
			t.Errorf("cleanup while the agent runs succeeded:\n%s", out)
		}
		f.must(f.agent.Stop())
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			f.expectOpen(t, resolver, "api.example")
			f.expectRefused(t, resolver, "evil.example")
		})

		for range 2 { // the second finds nothing, and that is no failure
			if out, err := f.command(t.Context(), f.Program("nameward-agent"), cleanup...); err != nil {
				t.Fatalf("cleanup: %v\n%s", err, out)
			}
		}
		for _, program := range []string{save, "ip6tables-" + backend + "-save"} {
			out, err := f.command(t.Context(), program)
			if err != nil {
				t.Fatalf("%s: %v\n%s", program, err, out)
			}
			if strings.Contains(strings.ToLower(out), "nameward") {
				t.Errorf("%s still shows:\n%s", program, out)
			}
			if program == save && !strings.Contains(out, "neighbour") {
				t.Errorf("%s no longer shows the neighbour's rule:\n%s", program, out)
			}
		}
		for _, path := range []string{f.BPFDir, f.Socket()} {
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("%s is left (%v)", path, err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(f.Dir, "agent", "*")); len(left) > 0 {
			t.Errorf("files are left: %v", left)
		}
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "evil.example") })
	})
}

// TestRepair: chains and jumps that somebody removes are noticed and put back.
func TestRepair(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		f.put(clientPolicy("api.example"))
		for _, command := range []string{
			"-t mangle -F NAMEWARD-PREROUTING", "-t mangle -F PREROUTING", "-t filter -F FORWARD",
			"-t filter -I FORWARD -j ACCEPT", "-t mangle -F",
		} {
			for _, program := range []string{"iptables-" + backend, "ip6tables-" + backend} {
				f.iptables(t, program, command)
			}
			for _, address := range f.opened(t, "evil.example") {
				f.must(lab.Await(t.Context(), func() error {
					if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
						return os.ErrPermission
					}
					return nil
				}, nil))
			}
			forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "api.example") })
		}
	})
}
