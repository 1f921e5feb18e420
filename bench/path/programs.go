package path

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/netfilter"
)

// emptyPrograms pins programs that do nothing, one for each of ours.
func emptyPrograms() (netfilter.Programs, error) {
	var p netfilter.Programs
	for name, at := range map[string]*string{
		"query-forwarded": &p.DNSQueryForwarded, "query-local": &p.DNSQueryLocal,
		"response": &p.DNSResponse, "untrusted": &p.DNSUntrusted, "unasked": &p.DNSUnasked,
		"egress-forwarded": &p.EgressForwarded, "egress-local": &p.EgressLocal,
	} {
		*at = filepath.Join(bpfDir, "empty-"+name)
		if err := pinProgram(*at, asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}); err != nil {
			return p, err
		}
	}
	return p, nil
}

func pinProgram(path string, instructions asm.Instructions) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SocketFilter, Instructions: instructions, License: "GPL"})
	if err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	defer program.Close() //nolint:errcheck // the pin keeps it
	if err := program.Pin(path); err != nil {
		return fmt.Errorf("pin program: %w", err)
	}
	return nil
}

// pinSetProgram pins a program that matches packets to one of some addresses, which it has in a map of its own.
func pinSetProgram(path string, addresses ...netip.Addr) (err error) {
	set, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 64})
	if err != nil {
		return fmt.Errorf("make map: %w", err)
	}
	defer func() { err = errors.Join(err, set.Close()) }()
	for _, address := range addresses {
		if err := set.Put(address.As4(), uint32(1)); err != nil {
			return fmt.Errorf("fill map: %w", err)
		}
	}
	const destinationAt = 16 // in the header of IPv4
	return pinProgram(path, asm.Instructions{
		asm.Mov.Imm(asm.R2, destinationAt),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -4),
		asm.Mov.Imm(asm.R4, 4),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "none"),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, set.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "none"),
		asm.Mov.Imm(asm.R0, 1),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("none"),
		asm.Return(),
	})
}

// errNotCalled is what a clock finds of a program that did not run.
var errNotCalled = errors.New("the program was not called")

// A clock reads the time that the kernel says a pinned program took.
type clock struct{ program *ebpf.Program }

// openClock opens a pin of the node. Statistics must be switched on.
func openClock(n *node, pin string) (clock, error) {
	var c clock
	err := n.do(func() (err error) {
		c.program, err = ebpf.LoadPinnedProgram(pin, nil)
		return err
	})
	if err != nil {
		return c, fmt.Errorf("open program: %w", err)
	}
	n.atEnd(func() { _ = c.program.Close() })
	return c, nil
}

// during gives how long a run of the program took on average while f ran.
func (c clock) during(f func() error) (nanoseconds float64, err error) {
	before, err := c.program.Stats()
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	if err := f(); err != nil {
		return 0, err
	}
	after, err := c.program.Stats()
	if err != nil {
		return 0, fmt.Errorf("read statistics: %w", err)
	}
	runs := after.RunCount - before.RunCount
	if runs == 0 {
		return 0, errNotCalled
	}
	return float64(after.Runtime-before.Runtime) / float64(runs), nil
}

// withStatistics runs f while the kernel measures programs, which costs each run of each of them some.
func withStatistics(f func() error) (err error) {
	statistics, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return fmt.Errorf("switch statistics on: %w", err)
	}
	defer func() { err = errors.Join(err, statistics.Close()) }()
	return f()
}
