package netfilter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// protocol is an address family, by the name of its main program.
type protocol string

const (
	ipv4 protocol = "iptables"
	ipv6 protocol = "ip6tables"
)

func (p protocol) portUnreachable() string {
	if p == ipv6 {
		return "icmp6-port-unreachable"
	}
	return "icmp-port-unreachable"
}

// protocols returns the families that the kernel speaks. One started without IPv6 cannot open such a
// socket; a network namespace where IPv6 is only switched off still can, and still gets rules, since
// it can be switched on again.
func protocols() []protocol {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return []protocol{ipv4}
	}
	if err == nil {
		unix.Close(fd)
	}
	return []protocol{ipv4, ipv6}
}

// tools are the programs of one family and backend.
type tools struct {
	protocol protocol
	main     string // path of iptables, and so on
	saver    string
	restorer string
}

// errNotInstalled says that a backend has no programs here.
var errNotInstalled = errors.New("not installed")

// findTools looks for the programs under the names that say the backend, then under the plain names.
func findTools(ctx context.Context, p protocol, backend string) (tools, error) {
	for _, name := range []string{string(p) + "-" + backend, string(p)} {
		t := tools{protocol: p}
		var errs [3]error
		t.main, errs[0] = findProgram(name)
		t.saver, errs[1] = findProgram(name + "-save")
		t.restorer, errs[2] = findProgram(name + "-restore")
		if errors.Join(errs[:]...) == nil && (name != string(p) || t.backend(ctx) == backend) {
			return t, nil
		}
	}
	return tools{}, fmt.Errorf("%w: neither %s-%s nor %s of the %s backend, with -save and -restore, is there: install iptables",
		errNotInstalled, p, backend, p, backend)
}

// findProgram looks beyond PATH, since that of a service often lacks the system's directories.
func findProgram(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("find %s: %w", name, exec.ErrNotFound)
}

// backend asks a program of a plain name which backend it is of. Releases before 1.8 do not say and
// are legacy.
func (t tools) backend(ctx context.Context) string {
	version, err := run(ctx, "", t.main, "--version")
	if err == nil && strings.Contains(version, "(nf_tables)") {
		return NFT
	}
	return Legacy
}

func (t tools) save(ctx context.Context, table string) (string, error) {
	return run(ctx, "", t.saver, "-t", table)
}

func (t tools) restore(ctx context.Context, transaction string) error {
	seconds := strconv.Itoa(int(lockWait.Seconds()))
	_, err := run(ctx, transaction, t.restorer, "-w", seconds, "--noflush")
	return err
}

func run(ctx context.Context, input, path string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("run %s %s: %w: %s", filepath.Base(path), strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Choose settles Auto: rules work only beside the node's own ones when both are of one backend,
// so the backend that those are in, and nft when that says nothing.
func Choose(ctx context.Context, wanted string) (string, error) {
	if wanted != Auto {
		_, err := findTools(ctx, ipv4, wanted)
		return wanted, err
	}
	nftRules, nftErr := foreignRules(ctx, NFT)
	legacyRules, legacyErr := foreignRules(ctx, Legacy)
	switch {
	case nftErr != nil && legacyErr != nil:
		return "", fmt.Errorf("choose the iptables backend: %w", errors.Join(nftErr, legacyErr))
	case legacyErr != nil && !errors.Is(legacyErr, errNotInstalled):
		// There are tables of legacy, and what is in them is not known: ours might stand in the wrong ones.
		return "", fmt.Errorf("choose the iptables backend (--iptables says which): %w", legacyErr)
	case nftErr != nil, legacyErr == nil && len(legacyRules) > 0 && len(nftRules) == 0:
		return Legacy, nil
	}
	return NFT, nil
}

// legacyNames are the files in which the kernel names the tables of iptables-legacy.
var legacyNames = map[protocol]string{ipv4: "ip_tables_names", ipv6: "ip6_tables_names"}

// tables returns the tables that exist. Reading one of legacy that does not would make it, and a
// module with it, so the kernel is asked which there are.
func (t tools) tables(ctx context.Context, backend string) ([]string, error) {
	if backend == NFT {
		_, err := t.save(ctx, "filter")
		return []string{"raw", "mangle", "nat", "filter", "security"}, err
	}
	return t.legacyTables()
}

func (t tools) legacyTables() ([]string, error) {
	// Of the thread, since a thread may be in a network namespace of its own.
	names, err := os.ReadFile("/proc/thread-self/net/" + legacyNames[t.protocol])
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list legacy tables: %w", err)
	}
	return strings.Fields(string(names)), nil
}
