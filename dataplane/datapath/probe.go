package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
)

// Probe checks, by doing it, whether the node can run a datapath with its pins at pinDir. It leaves
// nothing behind.
func Probe(pinDir string) []Requirement {
	return append(ProbeBeforeOpen(pinDir), probe(check{
		"program load", probePrograms, "run Linux 6.1 or newer with CONFIG_BPF_SYSCALL=y, CONFIG_BPF_JIT=y and CONFIG_DEBUG_INFO_BTF=y, not locked down for confidentiality",
	})...)
}

// ProbeBeforeOpen leaves out whether the kernel takes the programs: that costs a CPU a second or more, and
// Open finds it out before it changes anything.
func ProbeBeforeOpen(pinDir string) []Requirement {
	return probe([]check{
		{"capabilities", probeCapabilities, "run as root, or give the process CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"},
		{"locked memory", probeMemory, "raise the limit (LimitMEMLOCK=infinity in the systemd unit)"},
		{"bpf file system", func() (string, error) { return probePins(pinDir) }, "mount it: mount -t bpf bpf /sys/fs/bpf (and not inside `ip netns exec`, which hides it)"},
		{"ring buffer", probeRingBuffer, "run Linux 6.1 or newer with CONFIG_BPF_SYSCALL=y"},
		{"control groups", probeCgroups, ""},
		{"netlink", probeNetlink, "allow netlink sockets (RestrictAddressFamilies=AF_NETLINK in the systemd unit)"},
	}...)
}

type check struct {
	name   string
	try    func() (detail string, err error)
	remedy string
}

func probe(checks ...check) []Requirement {
	requirements := make([]Requirement, 0, len(checks))
	for _, c := range checks {
		detail, err := c.try()
		r := Requirement{Name: c.name, Met: err == nil, Detail: detail}
		if err != nil {
			r.Detail, r.Remedy = err.Error(), c.remedy
		}
		requirements = append(requirements, r)
	}
	return requirements
}

func probeCapabilities() (string, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return "", fmt.Errorf("read capabilities: %w", err)
	}
	has := func(capability int) bool { return data[capability/32].Effective&(1<<(capability%32)) != 0 }
	all := has(unix.CAP_SYS_ADMIN)
	var errs []error
	for _, c := range []struct {
		name  string
		value int
		admin bool // CAP_SYS_ADMIN stands in for it
	}{{"CAP_BPF", unix.CAP_BPF, true}, {"CAP_PERFMON", unix.CAP_PERFMON, true}, {"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false}} {
		if !has(c.value) && (!c.admin || !all) {
			errs = append(errs, fmt.Errorf("%s is missing", c.name))
		}
	}
	return "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN are there", errors.Join(errs...)
}

func probeMemory() (string, error) {
	return "not limited", rlimit.RemoveMemlock()
}

// probePins pins a map where the pins are to be.
func probePins(pinDir string) (string, error) {
	existing := pinDir
	for {
		if _, err := os.Stat(existing); err == nil {
			break
		}
		if parent := filepath.Dir(existing); parent != existing {
			existing = parent
			continue
		}
		return "", fmt.Errorf("%s: no directory above it exists", pinDir)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(existing, &fs); err != nil {
		return "", fmt.Errorf("inspect %s: %w", existing, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return "", fmt.Errorf("%s is not on a bpf file system", existing)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return "", fmt.Errorf("make map: %w", err)
	}
	defer m.Close() //nolint:errcheck // nothing is in it
	pin := filepath.Join(existing, fmt.Sprintf("nameward_probe_%d", os.Getpid()))
	if err := m.Pin(pin); err != nil {
		return "", fmt.Errorf("pin map: %w", err)
	}
	return existing + " takes pins", m.Unpin()
}

func probeRingBuffer() (string, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.RingBuf, MaxEntries: uint32(os.Getpagesize())}) //nolint:gosec // a page
	if err != nil {
		return "", fmt.Errorf("make ring buffer: %w", err)
	}
	return "works", m.Close()
}

// probePrograms loads every program on small maps of its own, and runs the one that the agent runs.
func probePrograms() (string, error) {
	spec, err := bpf.LoadDatapath()
	if err != nil {
		return "", fmt.Errorf("read compiled programs: %w", err)
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
		if m.Type != ebpf.RingBuf && m.Type != ebpf.PerCPUArray {
			m.MaxEntries = min(m.MaxEntries, 64)
		}
	}
	collection, err := ebpf.NewCollection(spec)
	if err != nil {
		return "", fmt.Errorf("load programs: %w", err)
	}
	defer collection.Close()
	if err := tryRemap(collection); err != nil {
		return "", err
	}
	return fmt.Sprintf("the kernel takes all %d programs", len(collection.Programs)), nil
}

// tryRemap runs the program that the agent itself runs, if it was loaded, with nothing to do.
func tryRemap(collection *ebpf.Collection) error {
	program, loaded := collection.Programs[bpf.DatapathProgRemap]
	if !loaded {
		return nil
	}
	if _, err := program.Run(&ebpf.RunOptions{Context: &bpf.DatapathRemapRequest{}}); err != nil {
		return fmt.Errorf("run program: %w", err)
	}
	return nil
}

// initialCgroups is the inode of the first namespace of control groups, in every kernel.
const initialCgroups = 0xeffffffb

// probeCgroups says what policies that select by control group can expect. The others need none.
func probeCgroups() (string, error) {
	dir, _, err := cgroupRoot()
	if errors.Is(err, errNoCgroups) {
		return "no cgroup2 hierarchy: policies that select by control group or systemd unit are refused", nil
	}
	var stat unix.Stat_t
	if err == nil && unix.Stat("/proc/self/ns/cgroup", &stat) == nil && stat.Ino != initialCgroups {
		return fmt.Sprintf("cgroup2 at %s, which is not the whole: while a policy in mode ENFORCE selects by control group, processes outside of it are denied", dir), nil
	}
	return "cgroup2 at " + dir, err
}

func probeNetlink() (string, error) {
	list, err := netlink.LinkList()
	if err != nil {
		return "", fmt.Errorf("list network interfaces: %w", err)
	}
	return fmt.Sprintf("%d network interfaces", len(list)), nil
}
