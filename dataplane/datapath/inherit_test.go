package datapath

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const otherLayout = "v0"

// leave closes a datapath and makes its pins those of another layout, of which it returns the programs and
// their pins.
func (f *fixture) leave(t *testing.T) (programs *fixture, pins []string) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(f.cfg.PinDir, otherLayout)
	if err := os.Rename(filepath.Join(f.cfg.PinDir, layout), dir); err != nil {
		t.Fatal(err)
	}
	programs = &fixture{Datapath: &Datapath{kernel: &kernel{programs: map[string]*ebpf.Program{}}}, id: 1000}
	entries, err := os.ReadDir(filepath.Join(dir, "programs"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		pin := filepath.Join(dir, "programs", entry.Name())
		program, err := ebpf.LoadPinnedProgram(pin, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = program.Close() })
		name := entry.Name()[:len(entry.Name())-len(bpf.Build())-1]
		programs.kernel.programs[name] = program
		pins = append(pins, pin)
	}
	f.describe(t, described())
	return programs, pins
}

// What another layout's programs learned is known: what its agent wrote down, what they learned since, and
// what they learn while both run. What both see counts once.
func TestInherit(t *testing.T) {
	f := newFixture(t)
	rules := hostRules(t, allow("*.example.com"))
	f.apply(t, rules)
	f.resolve(t, "written.example.com", 3600, "written.example.com. IN A 198.18.0.1")
	if err := f.locked(f.drain); err != nil {
		t.Fatal(err)
	}
	old, pins := f.leave(t)
	old.resolve(t, "unread.example.com", 3600, "unread.example.com. IN A 198.18.0.2")

	f.open(t)
	judged, err := f.Inherit(pins)
	if err != nil || !judged {
		t.Fatalf("judged: %v, %v; want true", judged, err)
	}
	if f.Judges() {
		t.Error("it judges before it has a rule set")
	}
	f.apply(t, rules)
	if !f.Judges() {
		t.Error("it does not judge")
	}
	both := "both.example.com. IN A 198.18.0.3"
	f.resolve(t, "both.example.com", 3600, both)
	old.resolve(t, "both.example.com", 3600, both)
	old.resolve(t, "late.example.com", 3600, "late.example.com. IN A 198.18.0.4")
	old.opens(t, "198.18.0.4:443")
	if err := f.Carry(); err != nil {
		t.Fatal(err)
	}
	names, err := f.NamesOf(map[netip.Addr]bool{netip.MustParseAddr("198.18.0.2"): true})
	if got := names[netip.MustParseAddr("198.18.0.2")]; err != nil || len(got.Names) != 1 {
		t.Errorf("names of what was learned while no agent ran: %v, %v", got, err)
	}

	if err := f.RetirePrograms(); err != nil {
		t.Fatal(err)
	}
	for _, destination := range []string{"198.18.0.1:443", "198.18.0.2:443", "198.18.0.3:443", "198.18.0.4:443"} {
		if !f.opens(t, destination) {
			t.Errorf("%s is not open", destination)
		}
	}
	if f.opens(t, "198.18.0.5:443") {
		t.Error("an address that nobody was told is open")
	}
	f.expectCounted(t, "dns_responses_learned", 4)
	f.expectCounted(t, "dns_queries_remembered", 4)
	f.expectCounted(t, "verdicts_allow", 1+4)
	if _, err := os.Stat(filepath.Join(f.cfg.PinDir, otherLayout)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins of the other layout: %v, want none", err)
	}
	f.restart(t)
	f.expectCounted(t, "dns_responses_learned", 4)
}

func (f *fixture) expectCounted(t *testing.T, name string, want uint64) {
	t.Helper()
	counters, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if counters[name] != want {
		t.Errorf("%s: %d, want %d", name, counters[name], want)
	}
}

// Match sets of another layout stand for what they stood for, or for nothing: a rule set that changed
// meanwhile gets none of their numbers.
func TestInheritedMatchSetsMeanTheSame(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("www.example.com")))
	f.resolve(t, "www.example.com", 3600, "www.example.com. IN A 198.18.0.1")
	_, pins := f.leave(t)
	// As if the journal had lost what they stand for.
	journal, err := openJournal(f.cfg.StateDir, now(t), f.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(journal.putJSON(string(memoryKey), "", map[string]int{}), journal.close(now(t))); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if _, err := f.Inherit(pins); err != nil {
		t.Fatal(err)
	}
	f.apply(t, hostRules(t, allow("www.other.test")))
	if f.opens(t, "198.18.0.1:443") {
		t.Error("an address is open by a match set that had another meaning")
	}
}

// Maps of a layout are read as its description says, whatever this build's are like: those that the kernel kept by
// address, as releases before this one did, and cells.
func TestInheritFromOtherMaps(t *testing.T) {
	byAddress, inCells := described(), described()
	byAddress.KeyBytes, byAddress.AddressAt, byAddress.ValueBytes, byAddress.SlotsAt, byAddress.Slots = 24, 8, 32, 16, 2
	byAddress.MatchSetBits, byAddress.TickShift, byAddress.Events = 24, 20, "another"
	inCells.AddressAt, inCells.ValueBytes, inCells.SlotsAt, inCells.Slots, inCells.OwnerAt = 8, 80, 64, 2, 44
	inCells.State, inCells.Owned = 0xf0, 0x20
	inCells.MatchSetBits, inCells.TickShift, inCells.Events = 24, 20, "another"
	for name, other := range map[string]struct {
		description
		m ebpf.MapSpec
	}{
		"by address": {byAddress, ebpf.MapSpec{Type: ebpf.LRUHash, KeySize: 24, ValueSize: 32, MaxEntries: 400}},
		"in cells":   {inCells, ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 80, MaxEntries: 400, Flags: unix.BPF_F_MMAPABLE}},
	} {
		t.Run(name, func(t *testing.T) { inheritFrom(t, other.description, &other.m) })
	}
}

func inheritFrom(t *testing.T, other description, spec *ebpf.MapSpec) {
	f := newFixture(t)
	rules := hostRules(t, allow("www.example.com"))
	f.apply(t, rules)
	f.resolve(t, "www.example.com", 3600, "www.example.com. IN A 198.18.0.1")
	set, expiry := f.onlySlot(t, "198.18.0.1")
	_, pins := f.leave(t)
	pin := filepath.Join(f.cfg.PinDir, otherLayout, mapsDir, bpf.DatapathMapMappings)
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	m, err := ebpf.NewMap(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i, last := range []byte{9, 10} {
		key, value := make([]byte, other.KeyBytes), make([]byte, other.ValueBytes)
		address := netip.AddrFrom4([4]byte{198, 18, 0, last}).As16()
		if other.inCells() {
			key = binary.LittleEndian.AppendUint32(nil, uint32(399-i))
			copy(value[other.AddressAt:], address[:])
			owner := []uint32{0x12345627, 0x12345637}[i] // the second has no address
			binary.LittleEndian.PutUint32(value[other.OwnerAt:], owner)
		} else {
			copy(key[other.AddressAt:], address[:])
		}
		binary.LittleEndian.PutUint64(value[other.SlotsAt+8:], expiry<<bpf.DatapathMappingLimitMAPPING_TICK_SHIFT>>20<<24|uint64(set))
		if !other.inCells() && i == 1 {
			break
		}
		if err := m.Put(key, value); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.Pin(pin); err != nil {
		t.Fatal(err)
	}
	f.describe(t, other)

	f.open(t)
	if _, err := f.Inherit(pins); err != nil {
		t.Fatal(err)
	}
	f.apply(t, rules)
	if !f.opens(t, "198.18.0.9:443") {
		t.Error("what the other maps hold is not open")
	}
	if f.opens(t, "198.18.0.10:443") {
		t.Error("what no address has is open to one")
	}
	if got, at := f.onlySlot(t, "198.18.0.9"); got != set || at != expiry {
		t.Errorf("match set %d until %d, want %d until %d", got, at, set, expiry)
	}
}

func (f *fixture) onlySlot(t *testing.T, of string) (set uint32, expiry uint64) {
	t.Helper()
	slots := f.slotsOf(t, netip.MustParseAddr(of))
	if len(slots) != 1 {
		t.Fatalf("slots %x, want one", slots)
	}
	return bpftest.Slot(slots[0])
}

// Where this build's programs judge, other layouts are what an attempt to move on left behind.
func TestLeftoversAreNotInherited(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("www.example.com")))
	f.resolve(t, "www.example.com", 3600, "www.example.com. IN A 198.18.0.1")
	f.leave(t)
	f.open(t)
	if judged, err := f.Inherit([]string{f.Programs().EgressLocal}); err != nil || judged {
		t.Errorf("judged: %v, %v; want false", judged, err)
	}
	f.apply(t, hostRules(t, allow("www.example.com")))
	if err := f.RetirePrograms(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(f.cfg.PinDir, otherLayout)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins of the other layout: %v, want none", err)
	}
}

// What gave way in another layout counts on, also of one that left it to the kernel, and did not count it.
func TestInheritEvicted(t *testing.T) {
	for name, counter := range map[string]bpf.DatapathCounter{
		"counted":       bpf.DatapathCounterCOUNTER_MAPPING_DROPPED,
		"by the kernel": bpf.DatapathCounterCOUNTER_MAPPING_CREATED, // as if seven more had been made, which are not there
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.apply(t, hostRules(t, allow("*.example.com")))
			f.resolve(t, "www.example.com", 3600, "www.example.com. IN A 198.18.0.1")
			var counted []uint64
			if err := f.kernel.Counters.Lookup(uint32(counter), &counted); err != nil {
				t.Fatal(err)
			}
			counted[0] += 7
			if err := f.kernel.Counters.Put(uint32(counter), counted); err != nil {
				t.Fatal(err)
			}
			_, pins := f.leave(t)
			if counter == bpf.DatapathCounterCOUNTER_MAPPING_CREATED {
				other := described()
				other.Counters = slices.DeleteFunc(slices.Clone(other.Counters), func(name string) bool { return name == mappingsEvicted })
				f.describe(t, other)
			}
			f.open(t)
			if _, err := f.Inherit(pins); err != nil {
				t.Fatal(err)
			}
			for range 2 { // and not again
				f.expectCounted(t, mappingsEvicted, 7)
				if err := f.Carry(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// describe says how the maps of the other layout are to be read.
func (f *fixture) describe(t *testing.T, other description) {
	t.Helper()
	journal, err := openJournal(f.cfg.StateDir, now(t), f.log)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(journal.putJSON(descriptionPrefix, otherLayout, other), journal.close(now(t))); err != nil {
		t.Fatal(err)
	}
}
