package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/preflight"
)

const newKernel = "run Linux 6.1 or newer with CONFIG_BPF_SYSCALL=y, CONFIG_BPF_JIT=y and CONFIG_DEBUG_INFO_BTF=y, not locked down for confidentiality"

// Probe checks, by doing it, whether the node can run a datapath with its pins at pinDir. It leaves
// nothing behind.
func Probe(pinDir string) []preflight.Requirement {
	requirements := []preflight.Requirement{
		preflight.Judge("locked memory", "not limited", rlimit.RemoveMemlock(), "raise the limit (LimitMEMLOCK=infinity in the systemd unit)"),
		probePins(pinDir),
	}
	spec, err := bpf.LoadDatapath()
	if err != nil {
		return append(requirements, preflight.Fail("compiled programs", err.Error(), "install the agent again: its file is damaged"))
	}
	requirements = append(requirements, probeFeatures(spec)...)
	return append(requirements, probePrograms(spec), probeCgroups(), probeNetlink())
}

// PinProbe pins a program that matches nothing, for a rule that shows whether programs can be called. The
// pin goes with remove.
func PinProbe(pinDir string) (path string, remove func() error, err error) {
	dir, err := existingDir(pinDir)
	if err != nil {
		return "", nil, err
	}
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SocketFilter, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return "", nil, fmt.Errorf("load program: %w", err)
	}
	path = probePin(dir, "program")
	if err := program.Pin(path); err != nil {
		return "", nil, errors.Join(fmt.Errorf("pin program: %w", err), program.Close())
	}
	return path, func() error { return errors.Join(program.Unpin(), program.Close()) }, nil
}

func probePin(dir, what string) string {
	return filepath.Join(dir, fmt.Sprintf("nameward_probe_%s_%d", what, os.Getpid()))
}

// probePins pins a map where the pins are to be.
func probePins(pinDir string) preflight.Requirement {
	const name, remedy = "bpf file system", "mount it: mount -t bpf bpf /sys/fs/bpf (and not inside `ip netns exec`, which hides it)"
	dir, err := existingDir(pinDir)
	if err != nil {
		return preflight.Fail(name, err.Error(), remedy)
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return preflight.Fail(name, fmt.Sprintf("not tried: make map: %v", err), "see capabilities and map types")
	}
	defer m.Close() //nolint:errcheck // nothing is in it
	if err := m.Pin(probePin(dir, "map")); err != nil {
		return preflight.Fail(name, "pin map: "+err.Error(), "let the agent write below "+dir+" (ReadWritePaths= of the systemd unit)")
	}
	return preflight.Judge(name, dir+" takes pins", m.Unpin(), remedy)
}

// existingDir returns the directory, or the one above it that exists, if it is on a bpf file system.
func existingDir(pinDir string) (string, error) {
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
	return existing, nil
}

// probePrograms loads every program on small maps of its own, and runs the one that the agent runs.
func probePrograms(spec *ebpf.CollectionSpec) preflight.Requirement {
	detail, err := loadPrograms(spec)
	return preflight.Judge("program load", detail, err, newKernel)
}

func loadPrograms(spec *ebpf.CollectionSpec) (string, error) {
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
	if _, err := collection.Programs[bpf.DatapathProgRemap].Run(&ebpf.RunOptions{Context: &bpf.DatapathRemapRequest{}}); err != nil {
		return "", fmt.Errorf("run program: %w", err)
	}
	return fmt.Sprintf("the kernel takes all %d programs", len(collection.Programs)), nil
}

// initialCgroups is the inode of the first namespace of control groups, in every kernel.
const initialCgroups = 0xeffffffb

// probeCgroups says what policies that select by control group can expect. The others need none.
func probeCgroups() preflight.Requirement {
	const name = "control groups"
	dir, _, err := cgroupRoot()
	if errors.Is(err, errNoCgroups) {
		return preflight.Warn(name, "no cgroup2 hierarchy: policies that select by control group or systemd unit are refused",
			"mount it (mount -t cgroup2 cgroup2 /sys/fs/cgroup), if a policy is to select so")
	}
	if err != nil {
		return preflight.Warn(name, err.Error(), "let the agent read /proc/thread-self/mountinfo, if a policy is to select by control group")
	}
	var stat unix.Stat_t
	if unix.Stat("/proc/self/ns/cgroup", &stat) == nil && stat.Ino != initialCgroups {
		return preflight.Warn(name,
			fmt.Sprintf("cgroup2 at %s, which is not the whole: while a policy in mode ENFORCE selects by control group, processes outside of it are denied", dir),
			"run the agent in the node's own namespace of control groups")
	}
	return preflight.Found(name, "cgroup2 at "+dir)
}

func probeNetlink() preflight.Requirement {
	list, err := netlink.LinkList()
	return preflight.Judge("netlink", fmt.Sprintf("%d network interfaces", len(list)), err,
		"allow netlink sockets (RestrictAddressFamilies=AF_NETLINK in the systemd unit)")
}
