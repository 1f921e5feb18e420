package e2e_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/e2e/lab"
)

const units = "../deployments/systemd"

// unit is a systemd unit: its sections, and the values of each key in order.
type unit map[string]map[string][]string

func readUnit(t *testing.T, name string) unit {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(units, name))
	if err != nil {
		t.Fatal(err)
	}
	u, section := unit{}, ""
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		key, value, assigns := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]")
			u[section] = map[string][]string{}
		case assigns:
			u[section][key] = append(u[section][key], value)
		default:
			t.Fatalf("%s: %q is no assignment", name, line)
		}
	}
	return u
}

// words returns the words of a key, of all its lines.
func (u unit) words(section, key string) []string {
	return strings.Fields(strings.Join(u[section][key], " "))
}

// capabilities are those that units name, with their numbers.
var capabilities = map[string]int{
	"CAP_BPF": unix.CAP_BPF, "CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_PERFMON": unix.CAP_PERFMON,
}

var families = map[string]int{
	"AF_UNIX": unix.AF_UNIX, "AF_INET": unix.AF_INET, "AF_INET6": unix.AF_INET6, "AF_NETLINK": unix.AF_NETLINK,
}

// numbersOf returns the numbers of names, as confine reads them.
func numbersOf(t *testing.T, names []string, numbers map[string]int) string {
	t.Helper()
	var list []string
	for _, name := range names {
		number, known := numbers[name]
		if !known {
			t.Fatalf("%s is not known here", name)
		}
		list = append(list, fmt.Sprint(number))
	}
	return strings.Join(list, ",")
}

// allowedSyscalls returns the system calls that the filter of a unit lets through: a line that begins with ~
// takes away, the others add; what a group is, systemd says.
func (u unit) allowedSyscalls(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("systemd-analyze", "--no-pager", "syscall-filter").Output()
	if err != nil {
		t.Fatalf("systemd-analyze syscall-filter: %v (Debian: package systemd)", err)
	}
	groups, group := map[string][]string{}, ""
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		switch line := lines.Text(); {
		case strings.HasPrefix(line, "@"):
			group = line
		case strings.HasPrefix(line, " ") && !strings.HasPrefix(strings.TrimSpace(line), "#"):
			groups[group] = append(groups[group], strings.TrimSpace(line))
		}
	}
	var expand func(name string) []string
	expand = func(name string) (names []string) {
		if !strings.HasPrefix(name, "@") {
			return []string{name}
		}
		if len(groups[name]) == 0 {
			t.Fatalf("systemd knows no group %s", name)
		}
		for _, member := range groups[name] {
			names = append(names, expand(member)...)
		}
		return names
	}
	allowed := map[string]bool{}
	for _, name := range expand("@default") { // an allow-list has it
		allowed[name] = true
	}
	for _, line := range u["Service"]["SystemCallFilter"] {
		rest, takes := strings.CutPrefix(line, "~")
		for _, name := range strings.Fields(rest) {
			for _, call := range expand(name) {
				allowed[call] = !takes
			}
		}
	}
	var names []string
	for name, is := range allowed {
		if is {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// syscallNumbers returns the numbers of system calls here. Those of other machines are left out.
func syscallNumbers(t *testing.T, names []string) string {
	t.Helper()
	header := map[string]string{"amd64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "arm64": "/usr/include/asm-generic/unistd.h"}[runtime.GOARCH]
	content, err := os.ReadFile(header)
	if err != nil {
		t.Fatalf("%v (Debian: package linux-libc-dev)", err)
	}
	numbers := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^#define __NR(?:3264)?_(\w+)\s+(\d+)`).FindAllStringSubmatch(string(content), -1) {
		numbers[match[1]] = match[2]
	}
	var list []string
	for _, name := range names {
		if number, known := numbers[name]; known {
			list = append(list, number)
		}
	}
	if len(list) < 100 {
		t.Fatalf("only %d of %d system calls are known from %s", len(list), len(names), header)
	}
	return strings.Join(list, ",")
}

// confined returns a command that runs the agent under what its unit says, but for the capabilities named. The
// lab's directory stands for StateDirectory= and RuntimeDirectory=, and its bpf file system for the node's.
func confined(t *testing.T, l *lab.Lab, u unit, without string, args ...string) *exec.Cmd {
	t.Helper()
	left := slices.DeleteFunc(u.words("Service", "CapabilityBoundingSet"), func(c string) bool { return c == without })
	readWrite := []string{l.Dir}
	for _, path := range u.words("Service", "ReadWritePaths") {
		if path = strings.TrimPrefix(path, "-"); path == "/sys/fs/bpf" {
			path = l.BPFFS
		}
		readWrite = append(readWrite, path)
	}
	command := []string{
		"-capabilities", numbersOf(t, left, capabilities),
		"-syscalls", syscallNumbers(t, u.allowedSyscalls(t)),
		"-families", numbersOf(t, u.words("Service", "RestrictAddressFamilies"), families),
		"-read-write", strings.Join(readWrite, ","),
		"--", l.Program("nameward-agent"),
	}
	return l.Node.Command(t.Context(), filepath.Join(programs, "confine"), append(command, args...)...)
}

// buildConfine builds the program that stands for systemd, and makes what systemd-tmpfiles would make.
func buildConfine(t *testing.T) {
	t.Helper()
	requireRoot(t)
	if *prebuilt == "" {
		if out, err := exec.Command("go", "build", "-o", filepath.Join(programs, "confine"), "./confine").CombinedOutput(); err != nil {
			t.Fatalf("build confine: %v\n%s", err, out)
		}
	}
	lines, err := os.ReadFile("../deployments/tmpfiles.d/nameward.conf")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(lines)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "f" {
			file, err := os.OpenFile(fields[1], os.O_CREATE|os.O_RDONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			_ = file.Close()
		}
	}
}
