package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/dataplane"
)

// settle runs the command line up to where the agent would start, and returns its configuration.
func settle(t *testing.T, file string, environment map[string]string, args ...string) (dataplane.Config, error) {
	t.Helper()
	p := &program{
		stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}, cfg: dataplane.DefaultConfig(),
		lookupEnv: func(name string) (string, bool) {
			value, ok := environment[name]
			return value, ok
		},
		readFile: func(name string) ([]byte, error) {
			if name != "agent.yaml" {
				return nil, os.ErrNotExist
			}
			return []byte(file), nil
		},
	}
	root := p.command()
	if err := root.ParseFlags(args); err != nil {
		return p.cfg, err
	}
	err := p.complete(root)
	return p.cfg, err
}

// TestPrecedence holds that the agent's flags are those that cmd/settings completes.
func TestPrecedence(t *testing.T) {
	file := "server: [a:1, b:2]\nlabel: {role: web, tier: \"1\"}\nmin-ttl: 5s\nmax-ttl: 1h\nmark: 0x20000000\ninsecure: true\n"
	cfg, err := settle(t, file, map[string]string{"NAMEWARD_MIN_TTL": "6s", "NAMEWARD_MAX_TTL": "2h", "NAMEWARD_CONFIG": "agent.yaml"},
		"--min-ttl", "7s")
	if err != nil {
		t.Fatal(err)
	}
	want := dataplane.DefaultConfig()
	want.Servers, want.Labels = []string{"a:1", "b:2"}, map[string]string{"role": "web", "tier": "1"}
	want.MinTTL, want.MaxTTL, want.Mark, want.Insecure = 7*time.Second, 2*time.Hour, 0x20000000, true
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("configuration (-want +got): %s", diff)
	}
}

func TestExitCodes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(file, []byte("servers: [a:1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--help"}, 0, ""},
		{[]string{"--nonsense"}, 2, "nonsense"},
		{[]string{"nonsense"}, 2, "nonsense"},
		{[]string{"--server", "127.0.0.1:7443", "--trusted-resolver", "192.0.2.53"}, 2, "tls-cert: must be set, with --tls-key and --server-ca"},
		{[]string{"--insecure", "--trusted-resolver", "192.0.2.53"}, 2, "server: must be set"},
		{[]string{"--config", "/nonexistent.yaml"}, 2, "nonexistent"},
		{[]string{"--config", file}, 2, file + `: servers: unknown key (did you mean "server"?)`},
		{[]string{"check", "-o", "xml"}, 2, "output"},
		{[]string{"check", "--mark", "3", "--denied-target", "LOG", "--server", "127.0.0.1:policy"}, 2, "mark: 0x3 is not one bit"},
		{[]string{"check", "--denied-target", "LOG"}, 2, `denied-target: "LOG" is neither REJECT nor DROP`},
		{[]string{"--server", "127.0.0.1:policy"}, 2, `server: "127.0.0.1:policy" is not HOST:PORT`},
		{[]string{"run", "--server", "127.0.0.1:70000", "extra"}, 2, "extra"},
		{[]string{"cleanup", "--state-dir", "relative"}, 2, "state-dir"},
	} {
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), c.args, &stdout, &stderr); code != c.code || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%q: exit code %d, %q; want %d and %q", c.args, code, stderr.String(), c.code, c.says)
		}
	}
}
