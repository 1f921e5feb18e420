package e2e_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// guarded is a policy server with certificates, on loopback, and who may call it.
type guarded struct {
	t       *testing.T
	dir     string // of the certificates
	address string
	log     string
}

// newGuarded makes a CA and starts a server, with further flags.
func newGuarded(t *testing.T, flags ...string) *guarded {
	t.Helper()
	requireRoot(t) // without it the programs are not built
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &guarded{t: t, dir: filepath.Join(t.TempDir(), "pki"), address: listener.Addr().String(), log: filepath.Join(t.TempDir(), "server.log")}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	g.pki("init")
	g.issue("server", "127.0.0.1")
	for _, role := range []string{"viewer", "editor", "admin"} {
		g.issue(role, role[:1])
	}
	g.issue("node", "web-1")
	log, err := os.Create(g.log)
	if err != nil {
		t.Fatal(err)
	}
	args := append([]string{"--listen", g.address, "--metrics-listen", "", "--data-dir", filepath.Join(g.dir, "data"), "--log-level", "debug"}, flags...)
	server := exec.Command(filepath.Join(programs, "nameward-server"), append(args, g.certificate("server", "127.0.0.1")...)...) //nolint:gosec // ours
	server.Stdout, server.Stderr = log, log
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Signal(syscall.SIGTERM)
		_ = server.Wait()
		_ = log.Close()
		if t.Failed() {
			text, _ := os.ReadFile(g.log)
			t.Logf("server:\n%s", text)
		}
	})
	if err := lab.Await(t.Context(), func() error { _, err := g.ctl("viewer", "v", "get", "policies"); return err }, nil); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *guarded) pki(args ...string) {
	g.t.Helper()
	out, err := exec.Command(filepath.Join(programs, "namewardctl"), append(append([]string{"pki"}, args...), "--dir", g.dir)...).CombinedOutput() //nolint:gosec // ours
	if err != nil {
		g.t.Fatalf("pki %v: %v\n%s", args, err, out)
	}
}

func (g *guarded) issue(role, name string) {
	g.t.Helper()
	g.pki("issue", "--role", role, "--name", name)
}

func (g *guarded) certificate(role, name string) []string {
	file := filepath.Join(g.dir, role+"-"+name)
	return []string{"--tls-cert", file + ".crt", "--tls-key", file + ".key", "--client-ca", filepath.Join(g.dir, "ca.crt")}
}

// ctl runs namewardctl as somebody, and returns all that it prints.
func (g *guarded) ctl(role, name string, args ...string) (string, error) {
	command := exec.Command(filepath.Join(programs, "namewardctl"), append(append([]string{"--server", g.address}, g.certificate(role, name)...), args...)...) //nolint:gosec // ours
	out, err := command.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return string(out), err
}

// TestAccess: with certificates as namewardctl makes them, each role may do what it may, who may not hears why, and
// the audit log has it all.
func TestAccess(t *testing.T) {
	g := newGuarded(t)
	document := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(document, []byte(`{"name": "policies/web", "rules": [{"action": "ALLOW", "domains": ["api.example.com"]}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	denied := func(role, name, needs string, args ...string) {
		t.Helper()
		_, err := g.ctl(role, name, args...)
		if want := fmt.Sprintf("spiffe://nameward/%s/%s has the role %s, and ", role, name, role); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "needs the role "+needs) {
			t.Errorf("%s %v: got %v, want %q and the role %s", role, args, err, want, needs)
		}
	}
	allowed := func(role, name string, args ...string) string {
		t.Helper()
		out, err := g.ctl(role, name, args...)
		if err != nil {
			t.Errorf("%s %v: %v", role, args, err)
		}
		return out
	}
	denied("viewer", "v", "editor", "apply", "-f", document)
	denied("node", "web-1", "viewer", "get", "policies")
	denied("node", "web-1", "editor", "delete", "policies/web")
	allowed("editor", "e", "apply", "-f", document)
	allowed("viewer", "v", "get", "policies", "web")
	denied("editor", "e", "admin", "get", "audit")
	denied("editor", "e", "admin", "delete", "nodes/web-1")
	allowed("editor", "e", "delete", "policies/web")

	var list struct {
		AuditEvents []struct {
			Caller              struct{ Identity, Role, Address string }
			Action, Resource    string
			Outcome, Reason     string
			Before, After       map[string]any
			Revision, Method    string
			CreateTime, EndTime string
		}
	}
	if err := json.Unmarshal([]byte(allowed("admin", "a", "get", "audit", "--resource", "policies/web", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.AuditEvents) != 2 {
		t.Fatalf("%d events: %+v", len(list.AuditEvents), list)
	}
	deleted, created := list.AuditEvents[0], list.AuditEvents[1]
	if created.Action != "CREATE" || created.Outcome != "COMMITTED" || created.Caller.Identity != "spiffe://nameward/editor/e" || created.Caller.Role != "editor" ||
		!strings.HasPrefix(created.Caller.Address, "127.0.0.1:") || created.Before != nil || created.After["policy"] == nil || created.Revision == "" || created.EndTime == "" {
		t.Errorf("created: %+v", created)
	}
	if deleted.Action != "DELETE" || deleted.Before["policy"] == nil || deleted.After != nil || !strings.HasSuffix(deleted.Method, "/DeletePolicy") {
		t.Errorf("deleted: %+v", deleted)
	}
	if out := allowed("admin", "a", "get", "audit", "--outcome", "denied", "-o", "wide"); strings.Count(out, "\n") != 6 || !strings.Contains(out, "spiffe://nameward/node/web-1") {
		t.Errorf("denied:\n%s", out)
	}
	for _, path := range []string{g.log} {
		expectNoSecret(t, path, g.dir)
	}
}

// expectNoSecret fails the test if a file has a line of a key.
func expectNoSecret(t *testing.T, path, keys string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(keys, "*.key"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no keys: %v", err)
	}
	for _, file := range files {
		key, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(key)) {
			if line = strings.TrimSpace(line); line != "" && strings.Contains(string(text), line) {
				t.Errorf("%s has a line of %s: %s", path, file, line)
			}
		}
	}
}

// TestRolesFile: with a file the identities in it have their roles and no other has one; a change counts for whoever
// is connected, and a broken file changes nothing.
func TestRolesFile(t *testing.T) {
	roles := filepath.Join(t.TempDir(), "roles.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(roles+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(roles+".new", roles); err != nil {
			t.Fatal(err)
		}
	}
	write("- {id: spiffe://nameward/viewer/*, role: viewer}\n- {id: spiffe://nameward/editor/e, role: editor}\n")
	g := newGuarded(t, "--roles-file", roles)
	if _, err := g.ctl("admin", "a", "get", "policies"); err == nil || !strings.Contains(err.Error(), "spiffe://nameward/admin/a has no role") {
		t.Errorf("an admin that the file lacks: %v", err)
	}
	// This watch is the viewer's, until it is one no longer.
	watch := exec.Command(filepath.Join(programs, "namewardctl"), append(append([]string{"--server", g.address}, g.certificate("viewer", "v")...), "watch", "policies")...) //nolint:gosec // ours
	said, err := os.Create(filepath.Join(t.TempDir(), "watch"))
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	watch.Stdout, watch.Stderr = said, said
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	write("- {id: spiffe://nameward/viewer/*, role: viewer\n")
	if _, err := g.ctl("viewer", "v", "get", "policies"); err != nil {
		t.Errorf("with a broken file: %v", err)
	}
	write("- {id: spiffe://nameward/admin/a, role: admin}\n")
	if err := watch.Wait(); err == nil {
		t.Error("the watch ended well")
	}
	if text, _ := os.ReadFile(said.Name()); !strings.Contains(string(text), "has no role") {
		t.Errorf("the watch said %q", text)
	}
	if _, err := g.ctl("editor", "e", "delete", "policies/web"); err == nil || !strings.Contains(err.Error(), "has no role") {
		t.Errorf("an editor that was: %v", err)
	}
	if _, err := g.ctl("admin", "a", "get", "audit"); err != nil {
		t.Errorf("an admin that is: %v", err)
	}
}
