package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/lower"
)

// generation is a rule set as the maps hold it under one generation, names and interfaces aside.
type generation struct {
	hosts        map[uint32]bpf.DatapathHostCell // by cell
	sources      map[bpf.DatapathPrefixKey]bpf.DatapathSourceClass
	destinations map[bpf.DatapathPrefixKey]uint32
	workloads    map[bpf.DatapathWorkloadKey]bpf.DatapathWorkload
	verdicts     map[uint32]bpf.DatapathVerdict // by cell
	cgroups      cgroups
	flags        bpf.DatapathGenerationFlags
}

// layOut translates the tables of a rule set into the records of one generation. The error wraps enforce.ErrFull.
func layOut(t *lower.Tables, number, seed uint32) (*generation, error) {
	g := &generation{
		destinations: prefixes(t.Destinations, number, classOf),
		workloads:    make(map[bpf.DatapathWorkloadKey]bpf.DatapathWorkload, len(t.Workloads)),
		cgroups:      layOutCgroups(&t.Cgroups, number),
		flags: bpf.DatapathGenerationFlags{
			Every: uint32(t.Patterns.Every), List: t.Patterns.List, Seed: seed,
		},
	}
	g.addWorkloads(t, number)
	for origin := range g.flags.Others {
		g.flags.Others[origin] = g.workloads[bpf.DatapathWorkloadKey{Generation: number, Origin: bpf.DatapathOrigin(origin)}] //nolint:gosec // two
	}
	if err := g.laySources(t.Sources, number, seed); err != nil {
		return nil, fmt.Errorf("lay out sources: %w: %w", err, enforce.ErrFull)
	}
	g.flags.Flags = flags(t.Flags, len(g.hosts) > 0, len(g.sources) > 0)
	var err error
	if g.verdicts, g.flags.VerdictBits, err = bpf.LayVerdicts(number, seed, verdicts(t.Verdicts)); err != nil {
		return nil, fmt.Errorf("lay out verdicts: %w: %w", err, enforce.ErrFull)
	}
	return g, nil
}

func (g *generation) addWorkloads(t *lower.Tables, number uint32) {
	anywhere := map[uint32]bool{}
	for key := range t.Verdicts {
		if key.Kind == lower.AnyDestination {
			anywhere[key.Workload] = true
		}
	}
	for key, w := range t.Workloads {
		origin := bpf.DatapathOriginORIGIN_FORWARDED
		if key.Local {
			origin = bpf.DatapathOriginORIGIN_LOCAL
		}
		var flags bpf.DatapathWorkloadFlag
		if w.Enforced {
			flags |= bpf.DatapathWorkloadFlagWORKLOAD_ENFORCED
		}
		if w.Audited {
			flags |= bpf.DatapathWorkloadFlagWORKLOAD_AUDITED
		}
		if anywhere[w.ID] {
			flags |= bpf.DatapathWorkloadFlagWORKLOAD_ANYWHERE
		}
		g.workloads[bpf.DatapathWorkloadKey{
			Generation: number, Origin: origin, Source: uint32(key.Source), Interface: uint32(key.Interface),
		}] = bpf.DatapathWorkload{Id: w.ID, Flags: flags}
	}
}

func flags(f lower.Flags, hosts, sources bool) (flags bpf.DatapathGenerationFlag) {
	for flag, set := range map[bpf.DatapathGenerationFlag]bool{
		bpf.DatapathGenerationFlagGENERATION_ENFORCES:     f.Enforces,
		bpf.DatapathGenerationFlagGENERATION_HOSTS:        hosts,
		bpf.DatapathGenerationFlagGENERATION_SOURCES:      sources,
		bpf.DatapathGenerationFlagGENERATION_INTERFACES:   f.Interfaces,
		bpf.DatapathGenerationFlagGENERATION_DESTINATIONS: f.Destinations,
		bpf.DatapathGenerationFlagGENERATION_REFUSES:      f.Refuses,
		bpf.DatapathGenerationFlagGENERATION_USERS:        f.Users,
		bpf.DatapathGenerationFlagGENERATION_CGROUPS:      f.Cgroups,

		bpf.DatapathGenerationFlagGENERATION_CGROUPS_ENFORCED: f.CgroupsEnforced,
	} {
		if set {
			flags |= flag
		}
	}
	return flags
}

func classOf(c lower.PrefixClass) uint32 { return uint32(c.Class) }

func prefixes[V any](classes []lower.PrefixClass, number uint32, value func(lower.PrefixClass) V) map[bpf.DatapathPrefixKey]V {
	keys := make(map[bpf.DatapathPrefixKey]V, len(classes))
	for _, c := range classes {
		keys[bpf.DatapathPrefixKey{
			Prefixlen:  32 + uint32(c.Prefix.Bits()), //nolint:gosec // at most 128
			Generation: number,
			Address:    address(c.Prefix.Addr()),
		}] = value(c)
	}
	return keys
}

// address is an address in the form of the records: IPv4 is mapped.
func address(a netip.Addr) bpf.DatapathAddress { return bpf.DatapathAddress{Bytes: a.As16()} }

func component(key lower.VerdictKey) bpf.DatapathComponent {
	kind := bpf.DatapathComponentCOMPONENT_ANY
	switch key.Kind {
	case lower.CIDRDestination:
		kind = bpf.DatapathComponentCOMPONENT_CIDR
	case lower.DomainDestination:
		kind = bpf.DatapathComponentCOMPONENT_MATCH_SET
	case lower.AnyQuestion:
		kind = bpf.DatapathComponentCOMPONENT_ANY_QUESTION
	case lower.DomainQuestion:
		kind = bpf.DatapathComponentCOMPONENT_QUESTION
	}
	return kind<<bpf.DatapathComponentCOMPONENT_SHIFT | bpf.DatapathComponent(key.ID)
}

// A rule's position is one that an entry has room for; the compiler checks it.
const _ = uint(bpf.MaxPositions - lower.MaxRules)

func verdicts(tables map[lower.VerdictKey][]lower.Entry) map[bpf.VerdictKey][]bpf.VerdictEntry {
	all := make(map[bpf.VerdictKey][]bpf.VerdictEntry, len(tables))
	for key, entries := range tables {
		records := make([]bpf.VerdictEntry, len(entries))
		for i, e := range entries {
			records[i] = verdictEntry(e)
		}
		all[bpf.VerdictKey{Workload: key.Workload, Component: component(key)}] = records
	}
	return all
}

func verdictEntry(e lower.Entry) bpf.VerdictEntry {
	record := bpf.VerdictEntry{Position: e.Position, FirstPort: e.First, LastPort: e.Last, Protocol: e.Protocol}
	if e.Deny {
		record.Flags |= bpf.DatapathVerdictFlagVERDICT_DENY
	}
	if e.Audit {
		record.Flags |= bpf.DatapathVerdictFlagVERDICT_AUDIT
	}
	return record
}

// readGeneration reads what the maps hold under one generation.
func (k *kernel) readGeneration(number uint32) (*generation, error) {
	g := &generation{}
	var err error
	if g.hosts, err = readCells[bpf.DatapathHostCell](k.Hosts, number); err != nil {
		return nil, err
	}
	if g.sources, err = readMap(k.Sources, prefixOf(number), bpf.DatapathSourceClass{}); err != nil {
		return nil, err
	}
	if g.destinations, err = readMap(k.Destinations, prefixOf(number), uint32(0)); err != nil {
		return nil, err
	}
	if g.workloads, err = readMap(k.Workloads, func(key bpf.DatapathWorkloadKey) bool {
		return key.Generation == number
	}, bpf.DatapathWorkload{}); err != nil {
		return nil, err
	}
	if g.verdicts, err = readCells[bpf.DatapathVerdict](k.Verdicts, number); err != nil {
		return nil, err
	}
	if g.cgroups, err = k.readCgroups(number); err != nil {
		return nil, err
	}
	if err := k.Generations.Lookup(number, &g.flags); err != nil {
		return nil, fmt.Errorf("read generation: %w", err)
	}
	return g, nil
}

func prefixOf(number uint32) func(bpf.DatapathPrefixKey) bool {
	return func(key bpf.DatapathPrefixKey) bool { return key.Generation == number }
}

func readMap[K comparable, V any](m *ebpf.Map, keep func(K) bool, value V) (map[K]V, error) {
	found := map[K]V{}
	var key K
	all := m.Iterate()
	for all.Next(&key, &value) {
		if keep(key) {
			found[key] = value
		}
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("read map %s: %w", m, err)
	}
	return found, nil
}

// writeGeneration makes the maps hold want under the generation where they held have.
func (k *kernel) writeGeneration(number uint32, have, want *generation) error {
	if err := writeCells(k.Hosts, have.hosts, want.hosts); err != nil {
		return err
	}
	if err := writeMap(k.Sources, have.sources, want.sources); err != nil {
		return err
	}
	if err := writeMap(k.Destinations, have.destinations, want.destinations); err != nil {
		return err
	}
	if err := writeMap(k.Workloads, have.workloads, want.workloads); err != nil {
		return err
	}
	if err := writeCells(k.Verdicts, have.verdicts, want.verdicts); err != nil {
		return err
	}
	if err := k.writeCgroups(number, have.cgroups, want.cgroups); err != nil {
		return err
	}
	if err := k.Generations.Put(number, &want.flags); err != nil {
		return fmt.Errorf("write generation: %w", err)
	}
	return nil
}

// writeMap changes what differs; what goes makes room for what comes.
func writeMap[K, V comparable](m *ebpf.Map, have, want map[K]V) error {
	var gone []K
	for key := range have {
		if _, stays := want[key]; !stays {
			gone = append(gone, key)
		}
	}
	if err := deleteKeys(m, gone); err != nil {
		return err
	}
	var keys []K
	var values []V
	for key, value := range want {
		if old, known := have[key]; !known || old != value {
			keys, values = append(keys, key), append(values, value)
		}
	}
	return putKeys(m, keys, values)
}

// readCells reads one generation's part of a map, as far as its cells are in use.
func readCells[C comparable](m *ebpf.Map, generation uint32) (map[uint32]C, error) {
	var cursor ebpf.MapBatchCursor
	var free C
	found, part := map[uint32]C{}, m.MaxEntries()/2
	keys, cells := make([]uint32, batch), make([]C, batch)
	for {
		n, err := m.BatchLookup(&cursor, keys, cells, nil)
		for i, key := range keys[:n] {
			if key/part == generation && cells[i] != free {
				found[key] = cells[i]
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return found, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read map %s: %w", m, err)
		}
	}
}

// writeCells changes what differs, in an order of no matter: nobody reads the idle generation's part.
func writeCells[C comparable](m *ebpf.Map, have, want map[uint32]C) error {
	var keys []uint32
	var cells []C
	for key := range have {
		if _, stays := want[key]; !stays {
			var free C
			keys, cells = append(keys, key), append(cells, free)
		}
	}
	for key, cell := range want {
		if have[key] != cell {
			keys, cells = append(keys, key), append(cells, cell)
		}
	}
	return putKeys(m, keys, cells)
}

func putKeys[K, V any](m *ebpf.Map, keys []K, values []V) error {
	for len(keys) > 0 {
		n := min(len(keys), batch)
		_, err := m.BatchUpdate(keys[:n], values[:n], nil)
		if errors.Is(err, ebpf.ErrNotSupported) {
			err = putEach(m, keys[:n], values[:n])
		}
		if isFull(err) {
			return fmt.Errorf("write map %s: more than its %d entries: %w", m, m.MaxEntries(), enforce.ErrFull)
		}
		if err != nil {
			return fmt.Errorf("write map %s: %w", m, err)
		}
		keys, values = keys[n:], values[n:]
	}
	return nil
}

func putEach[K, V any](m *ebpf.Map, keys []K, values []V) error {
	for i := range keys {
		if err := m.Put(&keys[i], &values[i]); err != nil {
			return err
		}
	}
	return nil
}

func deleteKeys[K any](m *ebpf.Map, keys []K) error {
	for len(keys) > 0 {
		n := min(len(keys), batch)
		// A batch stops at a key that is not there, so it is one by one then.
		if _, err := m.BatchDelete(keys[:n], nil); err != nil {
			for i := range n {
				if err := m.Delete(&keys[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
					return fmt.Errorf("delete from map %s: %w", m, err)
				}
			}
		}
		keys = keys[n:]
	}
	return nil
}

// isFull reports whether a map refused a key for want of room: hash maps say E2BIG, tries ENOSPC.
func isFull(err error) bool { return errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) }
