package e2e_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// TestPreflight: an agent on a machine that cannot do it says what is missing and how to mend it, and
// exits without having changed anything.
func TestPreflight(t *testing.T) {
	l := newLab(t)
	agent := append([]string{l.Program("nameward-agent")}, l.AgentFlags()...)
	tests := []struct {
		fact    string
		command []string
		says    []string
	}{
		{
			"no bpffs",
			append([]string{"unshare", "--mount", "sh", "-c", "umount -l " + l.BPFFS + ` && exec "$0" "$@"`}, agent...),
			[]string{"bpf file system", "mount -t bpf"},
		},
		{
			"no capability",
			append([]string{"setpriv", "--bounding-set=-bpf,-net_admin,-sys_admin,-perfmon", "--inh-caps=-all", "--"}, agent...),
			[]string{"CAP_BPF", "CAP_NET_ADMIN"},
		},
		{
			"no xt_bpf",
			append([]string{"env", "XTABLES_LIBDIR=" + extensionsWithoutBPF(t)}, agent...),
			[]string{"xt_bpf"},
		},
		{
			"no iptables",
			append([]string{"unshare", "--mount", "sh", "-c", `mount -t tmpfs none /usr/sbin && exec "$0" "$@"`}, agent...),
			[]string{"iptables", "install"},
		},
	}
	for _, test := range tests {
		for _, mode := range []string{"run", "check"} {
			t.Run(test.fact+", "+mode, func(t *testing.T) {
				command := append([]string{}, test.command...)
				for i, arg := range command {
					if arg == agent[0] {
						command = append(command[:i+1], append([]string{mode}, command[i+1:]...)...)
						break
					}
				}
				out, err := l.Node.Command(t.Context(), command[0], command[1:]...).CombinedOutput()
				if err == nil {
					t.Fatalf("succeeded:\n%s", out)
				}
				for _, want := range test.says {
					if !strings.Contains(string(out), want) {
						t.Errorf("does not say %q:\n%s", want, out)
					}
				}
				expectUntouched(t, l)
			})
		}
	}
	check := func(flags ...string) (string, error) {
		command := append(append([]string{"check", "-o", "json"}, agent[1:]...), flags...)
		out, err := l.Node.Command(t.Context(), agent[0], command...).Output()
		return string(out), err
	}
	t.Run("a resolver that does not answer is a warning", func(t *testing.T) {
		out, err := check("--trusted-resolver", "10.91.2.3:5399")
		var result struct {
			Met          bool
			Requirements []struct{ Requirement, Status, Detail, Remedy string }
		}
		if err := errors.Join(err, json.Unmarshal([]byte(out), &result)); err != nil || !result.Met {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, r := range result.Requirements {
			want := "ok"
			switch r.Requirement {
			case "resolver 10.91.2.3:5399":
				want = "warning"
			case "clock synchronisation", "state directory": // of the machine
				want = r.Status
			}
			if r.Status != want || (r.Remedy == "") != (r.Status == "ok") {
				t.Errorf("%+v, want %s", r, want)
			}
		}
		expectUntouched(t, l)
	})
	t.Run("a rule of others that uses our bit", func(t *testing.T) {
		rule := []string{"-w", "-t", "mangle", "-A", "POSTROUTING", "-d", "203.0.113.9", "-j", "MARK", "--set-mark", "0x10000000"}
		if out, err := l.Node.Command(t.Context(), "ip6tables-legacy", "-w", "-t", "raw", "-A", "OUTPUT", "-j", "MARK", "--or-mark", "0x10000000").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if out, err := l.Node.Command(t.Context(), "iptables-nft", rule...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		out, err := check("--iptables", "nft")
		if err == nil {
			t.Error("the check passed")
		}
		for _, want := range []string{"iptables-nft -t mangle -A POSTROUTING -d 203.0.113.9/32", "ip6tables-legacy -t raw -A OUTPUT", "--mark", "each packet passes both"} {
			if !strings.Contains(out, want) {
				t.Errorf("does not say %q:\n%s", want, out)
			}
		}
		if out, err := check("--iptables", "nft", "--mark", "0x20000000"); err != nil {
			t.Errorf("with another bit: %v\n%s", err, out)
		}
		for _, command := range [][]string{{"ip6tables-legacy", "-w", "-t", "raw", "-F"}, {"iptables-nft", "-w", "-t", "mangle", "-F"}} {
			if out, err := l.Node.Command(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
	})
	t.Run("a machine that can", func(t *testing.T) {
		out, err := l.Node.Command(t.Context(), agent[0], append([]string{"check"}, agent[1:]...)...).CombinedOutput()
		if err != nil {
			t.Errorf("check: %v\n%s", err, out)
		}
		expectUntouched(t, l)
	})
}

// extensionsWithoutBPF returns a directory with every extension of iptables but xt_bpf. The kernel under
// test has the match built in, so iptables is kept from knowing it.
func extensionsWithoutBPF(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	paths, err := filepath.Glob("/usr/lib/*/xtables/*.so")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no extensions of iptables found: %v", err)
	}
	for _, path := range paths {
		if name := filepath.Base(path); name != "libxt_bpf.so" {
			if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// expectUntouched fails the test when rules, pins or files are there that the lab did not make.
func expectUntouched(t *testing.T, l *lab.Lab) {
	t.Helper()
	for _, program := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save", "ip6tables-legacy-save"} {
		out, err := l.Node.Command(t.Context(), program).CombinedOutput()
		if err != nil || strings.Contains(string(out), "NAMEWARD") {
			t.Errorf("%s: %v\n%s", program, err, out)
		}
	}
	for _, path := range []string{l.BPFDir, l.Socket(), filepath.Join(l.Dir, "agent")} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s was made (%v)", path, err)
		}
	}
}

// TestTwoAgents: a second agent that would work on the same pins, or on the rules of the same network
// namespace, does not start, says who is there, and disturbs nothing; cleanup with other directories does not
// pull the pins away either.
func TestTwoAgents(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("api.example"))
	elsewhere := func(flag, name string) []string { return []string{flag, filepath.Join(f.Dir, name)} }
	tests := []struct {
		fact  string
		flags []string
		modes []string
	}{
		{"the same pins, another state directory", elsewhere("--state-dir", "other"), []string{"run", "check", "cleanup"}},
		{
			"other pins, the same network namespace",
			append(elsewhere("--state-dir", "other"), "--bpf-dir", filepath.Join(f.BPFFS, "other")),
			[]string{"run", "check"},
		},
	}
	for _, test := range tests {
		for _, mode := range test.modes {
			t.Run(test.fact+", "+mode, func(t *testing.T) {
				flags := append(append(append([]string{mode}, f.AgentFlags()...), elsewhere("--socket", "other.sock")...), test.flags...)
				out, err := f.command(t.Context(), f.Program("nameward-agent"), flags...)
				if err == nil || !strings.Contains(out, "(pid ") {
					t.Errorf("got %v, want it refused with the pid of the other:\n%s", err, out)
				}
			})
		}
	}
	f.expectOpen(t, lab.ResolverV4, "api.example")
	f.expectRefused(t, lab.ResolverV4, "evil.example")
	f.awaitCurrent()
	f.expectWell(t)
}
