package program

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/observe"
)

// What an agent has unless it is told otherwise.
const (
	agentPatterns = 131_072
	agentMappings = 262_144
	agentQueries  = 65_536
)

var resolver = netip.MustParseAddrPort("192.0.2.53:53")

// A node is the datapath of an agent, on a BPF file system of its own.
type node struct {
	effort
	datapath *datapath.Datapath
	maps     map[string]*ebpf.Map
	events   *ringbuf.Reader
	hot      hotPrograms
	query    *ebpf.Program // of forwarded packets
	response *ebpf.Program
	egress   *ebpf.Program // of forwarded packets
	programs []*ebpf.Program
	config   datapath.Config
	first    netip.Addr // from which on no address was learned under a rule set before
	closers  []func() error
}

// newNode makes a node with room for so many patterns, and no rule set.
func newNode(patterns int, effort effort) (n *node, err error) {
	n = &node{effort: effort, maps: map[string]*ebpf.Map{}, first: netip.MustParseAddr("198.18.0.1")}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if err := n.open(patterns); err != nil {
		return n, err
	}
	if err := n.loadPrograms(); err != nil {
		return n, err
	}
	if err := n.loadHot(); err != nil {
		return n, err
	}
	n.events, err = ringbuf.NewReader(n.maps[bpf.DatapathMapEvents])
	if err != nil {
		return n, fmt.Errorf("open ring buffer: %w", err)
	}
	n.onClose(n.events.Close)
	return n, nil
}

func (n *node) onClose(closer func() error) { n.closers = append(n.closers, closer) }

// close takes everything down again.
func (n *node) close() error {
	var errs []error
	for _, closer := range slices.Backward(n.closers) {
		errs = append(errs, closer())
	}
	n.closers = nil
	return errors.Join(errs...)
}

func (n *node) open(patterns int) error {
	dir, err := os.MkdirTemp("", "nameward-bench-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	n.onClose(func() error { return os.RemoveAll(dir) })
	pins, state := filepath.Join(dir, "bpf"), filepath.Join(dir, "state")
	if err := errors.Join(os.Mkdir(pins, 0o700), os.Mkdir(state, 0o700)); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	if err := unix.Mount("bpf", pins, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount bpf file system (this needs root): %w", err)
	}
	n.onClose(func() error { return unix.Unmount(pins, unix.MNT_DETACH) })
	n.config = datapath.Config{
		PinDir: filepath.Join(pins, "nameward"), StateDir: state,
		MinTTL: 30 * time.Second, MaxTTL: 24 * time.Hour, TTLGrace: 30 * time.Second, QueryTimeout: 10 * time.Second,
		MaxMappings: agentMappings, MaxAddressesPerName: 1000, MaxQueries: agentQueries,
		MaxPatterns: uint32(patterns), //nolint:gosec // at most a few millions
	}
	n.onClose(n.closeDatapath)
	return n.adopt()
}

func (n *node) closeDatapath() error {
	opened := n.datapath
	n.datapath = nil
	if opened == nil {
		return nil
	}
	return opened.Close()
}

// adopt opens the datapath as an agent does that starts: what is pinned stays.
func (n *node) adopt() (err error) {
	n.datapath, err = datapath.Open(n.config, observe.NewTable(0, 0), observe.NewFlows(0))
	if err != nil {
		return fmt.Errorf("open datapath: %w", err)
	}
	return n.datapath.SetEndpoints([]netip.AddrPort{resolver}, nil)
}

// addressesOfRules is how many addresses may be learned under one rule set.
const addressesOfRules = 1 << 22

// apply puts a rule set in force.
func (n *node) apply(ctx context.Context, rules *ruleset.RuleSet) error {
	// The ring buffer has one reader, and from the last time on it was not the datapath.
	if err := errors.Join(n.drain(), n.closeDatapath(), n.adopt()); err != nil {
		return err
	}
	if err := n.datapath.Apply(ctx, rules); err != nil {
		return fmt.Errorf("apply rule set: %w", err)
	}
	n.first = plus(n.first, addressesOfRules)
	return nil
}

// loadPrograms opens the pinned programs, and the maps that they use.
func (n *node) loadPrograms() error {
	pins := n.datapath.Programs()
	for pin, to := range map[string]**ebpf.Program{
		pins.DNSQueryForwarded: &n.query, pins.DNSResponse: &n.response, pins.EgressForwarded: &n.egress,
		pins.DNSQueryLocal: nil, pins.EgressLocal: nil, pins.DNSUntrusted: nil, pins.DNSUnasked: nil,
	} {
		program, err := ebpf.LoadPinnedProgram(pin, nil)
		if err != nil {
			return fmt.Errorf("open pinned program: %w", err)
		}
		n.onClose(program.Close)
		n.programs = append(n.programs, program)
		if to != nil {
			*to = program
		}
		if err := n.openMaps(program); err != nil {
			return fmt.Errorf("open maps of %s: %w", pin, err)
		}
	}
	return nil
}

func (n *node) openMaps(program *ebpf.Program) error {
	info, err := program.Info()
	if err != nil {
		return err
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		m, err := ebpf.NewMapFromID(id)
		if err != nil {
			return err
		}
		n.onClose(m.Close)
		info, err := m.Info()
		if err != nil {
			return err
		}
		n.maps[info.Name] = m
	}
	return nil
}

// loadHot loads the programs that ask again before they answer, upon the node's maps.
func (n *node) loadHot() error {
	spec, err := loadHot()
	if err != nil {
		return fmt.Errorf("read hot programs: %w", err)
	}
	shared := make(map[string]*ebpf.Map)
	for name, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
		if with := n.maps[name]; with != nil {
			shared[name], m.MaxEntries = with, with.MaxEntries()
		}
	}
	if err := spec.LoadAndAssign(&n.hot, &ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		return fmt.Errorf("load hot programs: %w", err)
	}
	n.onClose(n.hot.Close)
	return nil
}

// drain empties the ring buffer, as an agent does, so that no event is lost for want of room.
func (n *node) drain() error {
	n.events.SetDeadline(time.Unix(1, 0)) // in the past: what is there, and no waiting
	var record ringbuf.Record
	for {
		err := n.events.ReadInto(&record)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read ring buffer: %w", err)
		}
	}
}

// counted gives a counter's sum over all CPUs.
func (n *node) counted(counter bpf.DatapathCounter) (sum uint64, err error) {
	var values []uint64
	if err := n.maps[bpf.DatapathMapCounters].Lookup(counter, &values); err != nil {
		return 0, fmt.Errorf("look up counter: %w", err)
	}
	for _, value := range values {
		sum += value
	}
	return sum, nil
}

// faults are the counters that are 0 as long as what is measured is what is meant.
var faults = map[bpf.DatapathCounter]string{
	bpf.DatapathCounterCOUNTER_MALFORMED: "malformed", bpf.DatapathCounterCOUNTER_NO_QUERY: "no query",
	bpf.DatapathCounterCOUNTER_WRONG_QUESTION: "wrong question", bpf.DatapathCounterCOUNTER_LATE: "late",
	bpf.DatapathCounterCOUNTER_DUPLICATE: "duplicate", bpf.DatapathCounterCOUNTER_BUSY: "busy",
	bpf.DatapathCounterCOUNTER_MAPPING_FULL: "mapping full", bpf.DatapathCounterCOUNTER_EVENT_LOST: "event lost",
	bpf.DatapathCounterCOUNTER_QUERY_MALFORMED: "query malformed", bpf.DatapathCounterCOUNTER_QUERY_EVICTED: "query evicted",
	bpf.DatapathCounterCOUNTER_QUERY_REFUSED: "query refused", bpf.DatapathCounterCOUNTER_VERDICT_DENY: "denied",
	bpf.DatapathCounterCOUNTER_ADDRESSES_OVER_LIMIT: "addresses over limit",
}

// check says whether the programs did what was to be measured.
func (n *node) check() error {
	var errs []error
	for counter, name := range faults {
		count, err := n.counted(counter)
		if err == nil && count > 0 {
			err = fmt.Errorf("the programs counted %d times: %s", count, name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
