package e2e_test

import (
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
