package e2e_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

var debian = flag.String("debian", "", "a directory that has a Debian system for machines, which is then not made")

// onMachines are the packages of a machine beside those that every Debian has: what ours depend on, and a client.
const onMachines = "iptables,adduser,init-system-helpers,netcat-openbsd"

// noMirror says that no source of packages answers, without which there are no machines.
type noMirror struct{ error }

// debianSystem is the directory that machines start from, made once from the mirror that this machine uses itself.
var debianSystem = sync.OnceValues(func() (string, error) {
	if *debian != "" {
		return *debian, nil
	}
	ctx, dir := context.Background(), filepath.Join(programs, "debian")
	uris, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its mirrors: %w", err)
	}
	args := []string{"--quiet", "--mode=root", "--variant=apt", "--dpkgopt=force-unsafe-io", "--include=" + onMachines, "bookworm", dir}
	if uri, _, _ := strings.Cut(string(uris), "\n"); uri != "" {
		args = append(args, uri)
	}
	out, err := exec.CommandContext(ctx, "mmdebstrap", args...).CombinedOutput()
	if err == nil {
		return dir, nil
	}
	err = fmt.Errorf("mmdebstrap: %w\n%s", err, out)
	// What apt says of sources that answer: `Hit:` or `Get:`.
	lists, _ := exec.CommandContext(ctx, "apt-get", "-q", "update").CombinedOutput()
	for line := range strings.Lines(string(lists)) {
		if strings.HasPrefix(line, "Hit:") || strings.HasPrefix(line, "Get:") {
			return "", err
		}
	}
	return "", noMirror{err}
})

// startMachine starts a machine; where none can be made because no source of packages answers, the test is skipped,
// unless REQUIRE_PRIVILEGED says that nothing may be.
func startMachine(t *testing.T, l *lab.Lab, at *lab.Namespace, name string) *lab.Machine {
	t.Helper()
	if _, err := exec.LookPath("mmdebstrap"); err != nil && *prebuilt != "" && *debian == "" {
		t.Skip("machines are made where programs are")
	}
	base, err := debianSystem()
	if missing, is := err.(noMirror); is && os.Getenv("REQUIRE_PRIVILEGED") != "1" { //nolint:errorlint // not wrapped
		t.Skipf("no source of packages answers: %v", missing)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.NewMachine(t.Context(), at, name, base)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// buildPackages packs an agent and the other programs under test as a version, and returns the directory of the
// packages.
func buildPackages(t *testing.T, agent, version string) string {
	t.Helper()
	dir := t.TempDir()
	bin, out := filepath.Join(dir, "bin"), filepath.Join(dir, "dist")
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"nameward-agent": agent, "nameward-server": filepath.Join(programs, "nameward-server"), "namewardctl": filepath.Join(programs, "namewardctl"),
	} {
		if out, err := exec.CommandContext(t.Context(), "cp", "-L", path, filepath.Join(bin, name)).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	pack(t, out, "PROGRAMS="+bin, "VERSION="+version)
	return out
}

func pack(t *testing.T, out string, env ...string) {
	t.Helper()
	if _, err := os.Stat("../deployments/debian/build"); err != nil {
		t.Skip("packages are made where the sources are")
	}
	command := exec.CommandContext(t.Context(), "../deployments/debian/build", out)
	command.Env = append(os.Environ(), env...)
	if log, err := command.CombinedOutput(); err != nil {
		t.Fatalf("pack: %v\n%s", err, log)
	}
}
