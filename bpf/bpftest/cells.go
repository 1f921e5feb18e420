package bpftest

import (
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
)

// seed is that of every test's homes.
const seed = 0x5eed5eed

// cells is what hosts and verdicts are to hold in each generation, and what they hold.
type cells struct {
	rules    [2]map[bpf.VerdictKey][]bpf.VerdictEntry
	verdicts [2]map[uint32]bpf.DatapathVerdict
	sources  [2]map[bpf.Source]bpf.DatapathSourceClass
	hosts    [2]map[uint32]bpf.DatapathHostCell
}

func newCells() *cells {
	var c cells
	for generation := range c.rules {
		c.rules[generation] = map[bpf.VerdictKey][]bpf.VerdictEntry{}
		c.sources[generation] = map[bpf.Source]bpf.DatapathSourceClass{}
	}
	return &c
}

// Rules sets what a workload may match of one component in a generation.
func (d *Datapath) Rules(generation uint32, key bpf.VerdictKey, entries ...bpf.VerdictEntry) {
	d.t.Helper()
	d.cells.rules[generation][key] = entries
	d.LayRules(generation, d.cells.rules[generation])
}

// LayRules sets all that workloads may match in a generation.
func (d *Datapath) LayRules(generation uint32, rules map[bpf.VerdictKey][]bpf.VerdictEntry) {
	d.t.Helper()
	laid, bits, err := bpf.LayVerdicts(generation, seed, rules)
	if err != nil {
		d.t.Fatalf("lay out rules: %v", err)
	}
	d.cells.rules[generation] = rules
	d.cells.verdicts[generation] = replace(d, d.Verdicts, d.cells.verdicts[generation], laid)
	d.whole(generation, func(whole *bpf.DatapathGenerationFlags) { whole.VerdictBits, whole.Seed = bits, seed })
}

// Host gives a source of one address its class in a generation.
func (d *Datapath) Host(generation uint32, address netip.Addr, class bpf.DatapathSourceClass) {
	d.t.Helper()
	d.cells.sources[generation][Source(netip.PrefixFrom(address, address.BitLen()))] = class
	d.LayHosts(generation, d.cells.sources[generation])
}

// LayHosts gives all sources of a generation that are not in the trie their classes.
func (d *Datapath) LayHosts(generation uint32, sources map[bpf.Source]bpf.DatapathSourceClass) {
	d.t.Helper()
	hosts, err := bpf.LayHosts(generation, seed, sources)
	if err != nil {
		d.t.Fatalf("lay out hosts: %v", err)
	}
	d.cells.sources[generation] = sources
	d.cells.hosts[generation] = replace(d, d.Hosts, d.cells.hosts[generation], hosts.Cells)
	d.whole(generation, func(whole *bpf.DatapathGenerationFlags) {
		hosts.Describe(whole)
		whole.Seed = seed
	})
}

// Source is a prefix in the form of the records.
func Source(prefix netip.Prefix) bpf.Source {
	bits := prefix.Bits()
	if prefix.Addr().Is4() {
		bits += 96
	}
	return bpf.Source{Address: Addr(prefix.Masked().Addr()), Bits: uint8(bits)} //nolint:gosec // at most 128
}

// replace puts cells in place of others, and returns them.
func replace[Cell any](d *Datapath, table *ebpf.Map, before, laid map[uint32]Cell) map[uint32]Cell {
	d.t.Helper()
	for at := range before {
		var none Cell
		d.Put(table, at, none)
	}
	for at, cell := range laid {
		d.Put(table, at, cell)
	}
	return laid
}

// Flags sets what holds for a generation as a whole.
func (d *Datapath) Flags(generation uint32, flags bpf.DatapathGenerationFlag) {
	d.t.Helper()
	d.whole(generation, func(whole *bpf.DatapathGenerationFlags) { whole.Flags = flags })
}
