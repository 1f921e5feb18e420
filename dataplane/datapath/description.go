package datapath

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"reflect"
	"unsafe"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
)

// description says of a layout what a build of another one needs to take over from its maps. Every build
// leaves one in the journal, so that an older one can take over from a newer one too.
type description struct {
	// Of the map of mappings: an address in the key, or, where KeyBytes is 0, in the value, IPv4 as
	// ::ffff:a.b.c.d, and in the value slots of 64 bits each, with the match set in the low bits and above it
	// the tick at which it expires. Builds that know keys alone find that 0 is not how long a key is.
	KeyBytes     int
	AddressAt    int
	ValueBytes   int
	SlotsAt      int
	Slots        int
	MatchSetBits int
	TickShift    int // a tick is so many times doubled nanoseconds

	// Where the address is in the value: a word of 32 bits that is another when the address is. Of its bits
	// those in State are as in Owned, or the value has no address.
	OwnerAt      int
	State, Owned uint32

	// Of the map of settings, at index 0: match sets below it were given out, 64 bits.
	SettingsBytes  int
	NextMatchSetAt int

	Counters []string // what each index of the map of counters counts
	Events   string   // the format of events in the ring buffer
}

// described is this build's layout.
func described() description {
	var value bpf.DatapathMapping
	var settings bpf.DatapathSettings
	return description{
		AddressAt:  int(unsafe.Offsetof(value.Address)),
		ValueBytes: int(unsafe.Sizeof(value)), SlotsAt: int(unsafe.Offsetof(value.Slots)), Slots: len(value.Slots),
		MatchSetBits:  int(bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS),
		TickShift:     int(bpf.DatapathMappingLimitMAPPING_TICK_SHIFT),
		OwnerAt:       int(unsafe.Offsetof(value.Owner)),
		State:         uint32(bpf.DatapathMappingLimitMAPPING_STATE),
		Owned:         uint32(bpf.DatapathMappingLimitMAPPING_OWNED),
		SettingsBytes: int(unsafe.Sizeof(settings)), NextMatchSetAt: int(unsafe.Offsetof(settings.NextMatchSet)),
		Counters: counterNames[:],
		Events:   eventFormat(),
	}
}

// inCells reports whether mappings are in cells, which hold the address too.
func (d description) inCells() bool { return d.KeyBytes == 0 }

// cells is how a map of mappings in cells is read.
func (d description) cells(m *ebpf.Map) cellTable {
	return cellTable{
		Map: m, words: d.ValueBytes / 8, owner: d.OwnerAt / 8, shift: d.OwnerAt % 8 * 8, state: d.State, owned: d.Owned,
	}
}

// eventTail is raised when what comes behind the fixed part of an event changes its meaning.
const eventTail = 1

// eventFormat is equal for builds whose events can be read by one another.
func eventFormat() string {
	hash := sha256.New()
	for _, event := range []any{bpf.DatapathAnswerEvent{}, bpf.DatapathAnswerAddress{}, bpf.DatapathFlowEvent{}} {
		describeStruct(hash, reflect.TypeOf(event))
	}
	_, _ = fmt.Fprintf(hash, "%d", eventTail) // never fails
	return hex.EncodeToString(hash.Sum(nil)[:8])
}

func describeStruct(to io.Writer, t reflect.Type) {
	for field := range t.Fields() {
		_, _ = fmt.Fprintf(to, "%s %d %d\n", field.Name, field.Offset, field.Type.Size()) // never fails
	}
}
