package path

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bench/measure"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// A selection is a workload of the node's own processes, and the process that the connections are of.
type selection struct {
	name      string
	workloads []ruleset.Workload
}

const processUID = 40_000

// selections are the ways by which policies select processes. The unit's is the name of the control group.
func selections(group string) []selection {
	uid := uint32(processUID)
	return []selection{
		{"all processes of the node", []ruleset.Workload{{Host: true}}},
		{"a user", []ruleset.Workload{{UID: &uid}}},
		{"a control group", []ruleset.Workload{{Cgroup: "/" + group}}},
		{"a systemd unit", []ruleset.Workload{{Unit: group}}},
		{"a user in a systemd unit", []ruleset.Workload{{Unit: group, UID: &uid}}},
	}
}

// A group is a control group that this process can be in for a while.
type group struct{ name, dir, home string }

// makeGroup makes a control group with the name of a unit, at the root: nothing else there has such names.
func makeGroup() (group, error) {
	root, err := cgroupRoot()
	if err != nil {
		return group{}, err
	}
	name := fmt.Sprintf("nameward-bench-%d.service", os.Getpid())
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return group{}, fmt.Errorf("find own control group: %w", err)
	}
	g := group{name: name, dir: filepath.Join(root, name)}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			g.home = filepath.Join(root, path)
		}
	}
	left, _ := filepath.Glob(filepath.Join(root, "nameward-bench-*.service"))
	for _, dir := range left {
		_ = os.Remove(dir) // of a process that was killed; one that is in use stays
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return g, fmt.Errorf("make control group: %w", err)
	}
	return g, nil
}

func cgroupRoot() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", fmt.Errorf("find control groups: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); strings.Contains(line, " - cgroup2 ") && fields[3] == "/" {
			return fields[4], nil
		}
	}
	return "", errors.New("no cgroup2 hierarchy is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")
}

// remove removes the group, which this process is not in any more. The sockets keep what they need of it.
func (g group) remove() error { return os.Remove(g.dir) }

// within runs f while this process is in the group.
func (g group) within(f func() error) (err error) {
	move := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, os.Getpid()), 0)
	}
	if err := move(g.dir); err != nil {
		return fmt.Errorf("enter control group: %w", err)
	}
	defer func() { err = errors.Join(err, move(g.home)) }()
	return f()
}

// openProcess opens a socket on a node as a user's process in the group would.
func openProcess(n *node, g group) (fd int, err error) {
	err = g.within(func() error {
		return n.do(func() (err error) {
			_ = unix.Setfsuid(processUID) // of this thread alone, and of the sockets that it makes
			defer unix.Setfsuid(0)        //nolint:errcheck // it was so before
			fd, err = openDatagrams()
			return err
		})
	})
	if err == nil {
		n.atEnd(func() { _ = unix.Close(fd) })
	}
	return fd, err
}

func waysOfProcesses(ctx context.Context, g group, selected []selection) (ways []*way, programs map[string]string, err error) {
	programs = map[string]string{}
	to := addresses(services, 1)
	defer func() {
		if err != nil {
			closeAll(ways)
		}
	}()
	add := func(name string, open func(*node) error) error {
		w, err := newWay(ctx, name, open)
		if err != nil {
			return err
		}
		ways = append(ways, w)
		fd, err := openProcess(w.node, g)
		w.packets = &local{fd: fd, to: to}
		return err
	}
	err = add(plain, func(n *node) error {
		return n.do(func() error {
			return run(ctx, strings.ReplaceAll("*filter\n"+plainRule+"COMMIT\n", "FORWARD", "OUTPUT"), "iptables-nft-restore", "--noflush")
		})
	})
	if err != nil {
		return ways, programs, err
	}
	if err = add(emptyHooks, func(n *node) error {
		empty, err := hookEmpty(ctx, n, netfilter.NFT)
		programs[emptyHooks] = empty.EgressLocal
		return err
	}); err != nil {
		return ways, programs, err
	}
	for _, s := range selected {
		if err = add(s.name, func(n *node) error {
			pin, err := enforceProcesses(ctx, n, s.workloads, to)
			programs[s.name] = pin
			return err
		}); err != nil {
			return ways, programs, err
		}
	}
	return ways, programs, nil
}

func enforceProcesses(ctx context.Context, n *node, workloads []ruleset.Workload, to []netip.Addr) (pin string, err error) {
	rules, err := allowSets(1, workloads)
	if err != nil {
		return "", err
	}
	answers, err := resolveSets(to)
	if err != nil {
		return "", err
	}
	e, err := enforce(ctx, n, netfilter.NFT, rules, answers)
	if err != nil {
		return "", err
	}
	return e.programs.EgressLocal, nil
}

func measureProcesses(ctx context.Context, config report.Config) (report.Result, error) {
	return processes(ctx, config, extentOf(config))
}

func processes(ctx context.Context, config report.Config, x extent) (result report.Result, err error) {
	logf(config, "processes of the node")
	g, err := makeGroup()
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, g.remove()) }()
	selected := selections(g.name)
	selected = selected[max(0, len(selected)-x.selections):]
	ways, programs, err := waysOfProcesses(ctx, g, selected)
	if err != nil {
		return result, fmt.Errorf("processes of the node: %w", err)
	}
	defer closeAll(ways)
	c, err := compareOnce(ctx, x, 1, ways, programs)
	if err != nil {
		return result, fmt.Errorf("processes of the node: %w", err)
	}
	return reportProcesses(c, selected), nil
}

const processesText = `Connections of the node's own processes can be selected by who opens them. The packets are
the first datagrams of flows that a process of a user in a control group, which is a systemd unit, sends; each line
is a node where the policy selects it in another way. Which control group the process is in, and which policies
name that group, the kernel finds out by itself, once for each group.`

func reportProcesses(c costs, selections []selection) report.Result {
	r := report.Result{Title: "A new connection of a process of the node", Text: processesText}
	t := report.Table{
		Caption: "Nanoseconds a new flow, by what selects the process: median (quartiles)",
		Columns: []string{"selected by", "egress program, in path", "whole path over empty programs", "whole path over one conntrack rule"},
	}
	var largest measure.Series
	row := func(name, label string) {
		t.Rows = append(t.Rows, []string{
			label, spread(c.program[name]),
			spread(c.path[name].Over(c.path[emptyHooks])), spread(c.path[name].Over(c.path[plain])),
		})
	}
	row(emptyHooks, "(empty programs)")
	for _, s := range selections {
		row(s.name, s.name)
		if len(largest.Values) == 0 || c.program[s.name].Median() > largest.Median() {
			largest = c.program[s.name]
		}
	}
	r.Tables = []report.Table{t}
	r.Budgets = []report.Budget{noted(
		"what a control group is part of is kept in an entry of an LRU table with its hash, and each connection hashes it again, since the kernel may give the entry to another group while it is read; then each of its classes is looked up",
		report.Budget{
			Work: "Verdict on a new connection of a process: the egress program in path, however it is selected", Promise: fmt.Sprintf("≤ %d ns", egressPromise),
			Measured: fmt.Sprintf("%s ns, by %s", spread(largest), largest.Name), Met: largest.Median() <= egressPromise,
			Relative: report.Relative(largest.Median(), c.program[emptyHooks].Median(), egressPromise, report.EmptyInPath),
		})}
	return r
}
