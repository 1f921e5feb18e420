package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
)

// A predecessor is the pins of another layout, made by another release. Its programs may still judge.
type predecessor struct {
	layout string
	dir    string
	description
	settings, mappings, counters, eventMap *ebpf.Map
	events                                 *ring // nil where its events are of another format

	before, ownBefore map[string]uint64 // counters, its and this build's, when the takeover began
	held              uint64            // entries of mappings, when they were read last
}

// predecessors opens the pins of other layouts. One that cannot be read is left alone, with a warning:
// what it knows is lost, and it stays in force until the rules have moved on.
func (d *Datapath) openPredecessors() error {
	entries, err := os.ReadDir(d.cfg.PinDir)
	if err != nil {
		return fmt.Errorf("list layouts of pins: %w", err)
	}
	for _, entry := range entries {
		if !isLayout(entry.Name()) || entry.Name() == layout {
			continue
		}
		p := &predecessor{layout: entry.Name(), dir: filepath.Join(d.cfg.PinDir, entry.Name())}
		if err := p.open(d.journal); err != nil {
			d.log.Warn("what another release learned cannot be read: its names have to be resolved again", "pins", p.dir, "err", err)
			p.close()
		}
		d.predecessors = append(d.predecessors, p)
	}
	return nil
}

// isLayout reports whether a directory is that of a layout: v and a number.
func isLayout(name string) bool {
	number, ok := strings.CutPrefix(name, "v")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

func (p *predecessor) open(j *journal) (err error) {
	if p.description, err = j.description(p.layout); err != nil {
		return err
	}
	for name, to := range map[string]**ebpf.Map{
		bpf.DatapathMapSettings: &p.settings, bpf.DatapathMapMappings: &p.mappings,
		bpf.DatapathMapCounters: &p.counters, bpf.DatapathMapEvents: &p.eventMap,
	} {
		if *to, err = ebpf.LoadPinnedMap(filepath.Join(p.dir, mapsDir, name), nil); err != nil {
			return fmt.Errorf("open pinned map %s: %w", name, err)
		}
	}
	if !p.inCells() && int(p.mappings.KeySize()) != p.KeyBytes || int(p.mappings.ValueSize()) != p.ValueBytes ||
		int(p.settings.ValueSize()) != p.SettingsBytes {
		return errors.New("maps are not as their description says")
	}
	if p.Events == eventFormat() {
		if p.events, err = openRing(p.eventMap); err != nil {
			return err
		}
		p.events.tickShift = p.TickShift
	}
	return nil
}

// readable reports whether it can be taken over from.
func (p *predecessor) readable() bool { return p.mappings != nil }

func (p *predecessor) close() {
	if p.events != nil {
		_ = p.events.close() // memory of this process alone
	}
	for _, m := range []*ebpf.Map{p.settings, p.mappings, p.counters, p.eventMap} {
		if m != nil {
			_ = m.Close() // the pin stays
		}
	}
	p.settings, p.mappings, p.counters, p.eventMap, p.events = nil, nil, nil, nil, nil
}

// nextMatchSet is above every match set that it gave out.
func (p *predecessor) nextMatchSet() (uint64, error) {
	settings := make([]byte, p.SettingsBytes)
	if err := p.settings.Lookup(uint32(0), settings); err != nil {
		return 0, fmt.Errorf("read settings of layout %s: %w", p.layout, err)
	}
	return binary.LittleEndian.Uint64(settings[p.NextMatchSetAt:]), nil
}

// doors gives what is open after a tick, with the expiry in ticks of this build.
func (p *predecessor) doors(after uint64) (doors map[door]uint64, err error) {
	doors, p.held = map[door]uint64{}, 0
	read := p.eachEntry
	if p.inCells() {
		read = p.eachCell
	}
	err = read(func(address netip.Addr, slots []byte) {
		p.held++
		for i := range p.Slots {
			slot := binary.LittleEndian.Uint64(slots[8*i:])
			expiry := slot >> p.MatchSetBits << p.TickShift >> bpf.DatapathMappingLimitMAPPING_TICK_SHIFT
			if set := uint32(slot & (1<<p.MatchSetBits - 1)); set != 0 && expiry > after { //nolint:gosec // the low bits
				doors[door{address, set}] = max(doors[door{address, set}], expiry)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read mappings of layout %s: %w", p.layout, err)
	}
	return doors, nil
}

// eachEntry reads mappings that are keyed by address.
func (p *predecessor) eachEntry(visit func(address netip.Addr, slots []byte)) error {
	key, value := make([]byte, p.KeyBytes), make([]byte, p.ValueBytes)
	all := p.mappings.Iterate()
	for all.Next(&key, &value) {
		visit(netip.AddrFrom16([16]byte(key[p.AddressAt:])).Unmap(), value[p.SlotsAt:])
	}
	// A map that changes meanwhile may have the reader begin again, and at last give up: what is there then
	// has been seen.
	if err := all.Err(); !errors.Is(err, ebpf.ErrIterationAborted) {
		return err
	}
	return nil
}

// eachCell reads mappings that are in cells.
func (p *predecessor) eachCell(visit func(address netip.Addr, slots []byte)) error {
	return p.cells(p.mappings).visit(func(words []uint64) error {
		cell := make([]byte, p.ValueBytes)
		for ; len(words) > 0; words = words[len(cell)/8:] {
			for i := range len(cell) / 8 {
				binary.LittleEndian.PutUint64(cell[8*i:], words[i])
			}
			visit(netip.AddrFrom16([16]byte(cell[p.AddressAt:])).Unmap(), cell[p.SlotsAt:])
		}
		return nil
	})
}

// counted sums its counters over the CPUs, by name.
func (p *predecessor) counted() (map[string]uint64, error) {
	sums := map[string]uint64{}
	for i, name := range p.Counters {
		var each []uint64
		if err := p.counters.Lookup(uint32(i), &each); err != nil { //nolint:gosec // an index
			return nil, fmt.Errorf("read counters of layout %s: %w", p.layout, err)
		}
		for _, n := range each {
			sums[name] += n
		}
	}
	return sums, nil
}
