package datapath

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
)

// cgroups are the control groups that a generation names. Which there are, only the kernel knows.
type cgroups struct {
	nodes map[bpf.DatapathCgroupKey]bpf.DatapathCgroupNode
	pairs map[bpf.DatapathCgroupPair]uint32
}

func layOutCgroups(t *lower.Cgroups, number uint32) cgroups {
	c := cgroups{
		nodes: make(map[bpf.DatapathCgroupKey]bpf.DatapathCgroupNode, len(t.Nodes)),
		pairs: make(map[bpf.DatapathCgroupPair]uint32, len(t.Pairs)),
	}
	for key, node := range t.Nodes {
		record := bpf.DatapathCgroupKey{Generation: number, Parent: bpf.DatapathCgroupLimit(key.Parent)}
		copy(record.Name[:], key.Name)
		c.nodes[record] = bpf.DatapathCgroupNode{Node: node.Node, Class: uint32(node.Class), Part: node.Part}
	}
	for pair, class := range t.Pairs {
		c.pairs[bpf.DatapathCgroupPair{Generation: number, Path: pair.Path, Unit: pair.Unit}] = uint32(class)
	}
	return c
}

func (k *kernel) readCgroups(number uint32) (c cgroups, err error) {
	if c.nodes, err = readMap(k.Cgroups, func(key bpf.DatapathCgroupKey) bool {
		return key.Generation == number
	}, bpf.DatapathCgroupNode{}); err != nil {
		return c, err
	}
	c.pairs, err = readMap(k.CgroupPairs, func(key bpf.DatapathCgroupPair) bool { return key.Generation == number }, uint32(0))
	return c, err
}

// writeCgroups makes the maps hold want where they held have. Before anything changes, a new epoch makes
// the kernel forget what it found out by the tables until then.
func (k *kernel) writeCgroups(number uint32, have, want cgroups) error {
	var table bpf.DatapathCgroupTable
	if err := k.CgroupTables.Lookup(number, &table); err != nil {
		return fmt.Errorf("read root of control groups: %w", err)
	}
	root := table.Root
	if len(want.nodes) > 0 {
		var err error
		if _, root, err = cgroupRoot(); err != nil {
			return fmt.Errorf("select workloads by control group: %w", err)
		}
	}
	if root == table.Root && maps.Equal(have.nodes, want.nodes) && maps.Equal(have.pairs, want.pairs) {
		return nil
	}
	var random [8]byte
	_, _ = rand.Read(random[:]) // never fails
	table = bpf.DatapathCgroupTable{Epoch: binary.LittleEndian.Uint64(random[:]), Root: root}
	if err := k.CgroupTables.Put(number, &table); err != nil {
		return fmt.Errorf("write root of control groups: %w", err)
	}
	if err := writeMap(k.Cgroups, have.nodes, want.nodes); err != nil {
		return err
	}
	return writeMap(k.CgroupPairs, have.pairs, want.pairs)
}

// errNoCgroups says why policies cannot select by control group on this node.
var errNoCgroups = errors.New("no cgroup2 hierarchy is mounted that begins at the root of this process's control groups")

// cgroupRoot finds the control group that paths begin at: the root that this process sees.
func cgroupRoot() (dir string, id uint64, err error) {
	mounts, err := os.Open("/proc/thread-self/mountinfo")
	if err != nil {
		return "", 0, fmt.Errorf("look for the cgroup2 hierarchy: %w", err)
	}
	defer mounts.Close() //nolint:errcheck // only read
	lines := bufio.NewScanner(mounts)
	for lines.Scan() {
		// proc_pid_mountinfo(5): id, parent, device, root, mount point, options, optional fields, `-`, type.
		fields := strings.Fields(lines.Text())
		_, kind, _ := strings.Cut(lines.Text(), " - ")
		if len(fields) < 5 || fields[3] != "/" || !strings.HasPrefix(kind, "cgroup2 ") {
			continue
		}
		dir = unescape(fields[4])
		if id, ok := cgroupID(dir); ok {
			return dir, id, nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", 0, fmt.Errorf("look for the cgroup2 hierarchy: %w", err)
	}
	return "", 0, errNoCgroups
}

// cgroupID returns the id of a control group by its directory; false when something else is mounted above.
func cgroupID(dir string) (uint64, bool) {
	var fs unix.Statfs_t
	var stat unix.Stat_t
	if unix.Statfs(dir, &fs) != nil || fs.Type != unix.CGROUP2_SUPER_MAGIC || unix.Stat(dir, &stat) != nil {
		return 0, false
	}
	return stat.Ino, true
}

// unescape reads a path of mountinfo, where blanks are octal numbers.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}
