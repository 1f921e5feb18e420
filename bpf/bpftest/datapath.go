package bpftest

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
)

// Key is the hash key of every test's tables.
var Key = bpf.HashKey{0x0123456789abcdef, 0xfedcba9876543210, 0x0f1e2d3c4b5a6978, 0x8796a5b4c3d2e1f0}

// Times of a test's settings.
const (
	QueryTimeout = 10 * time.Second
	MinTTL       = 30 * time.Second
	MaxTTL       = 24 * time.Hour
	Grace        = 30 * time.Second
)

// Room for more than most tests ask and learn.
const (
	nearBuckets     = 16
	questionBuckets = nearBuckets + 48
	answerBuckets   = 256
	mappingCells    = 8192
)

// Datapath is the loaded collection, unpinned.
type Datapath struct {
	bpf.DatapathObjects
	t      testing.TB
	events *ringbuf.Reader
	names  *names
	cells  *cells
	near   uint32 // buckets of questions

	mappings []bpf.DatapathMapping // as they were read last
}

// Load gives a test a collection of its own with room for `buckets` buckets of names, and
// nothing in its maps. Options may change its spec before it is loaded. Without any it may have been that of
// a test that has ended.
func Load(t testing.TB, buckets uint32, options ...func(*ebpf.CollectionSpec)) *Datapath {
	t.Helper()
	RequirePrivileged(t)
	var d *Datapath
	if len(options) == 0 {
		d = borrow(t, buckets)
	}
	if d == nil {
		d = load(t, buckets, options...)
	}
	t.Cleanup(func() {
		if len(options) == 0 {
			giveBack(d)
			return
		}
		_ = d.events.Close()
		_ = d.Close()
	})
	d.begin()
	return d
}

func load(t testing.TB, buckets uint32, options ...func(*ebpf.CollectionSpec)) *Datapath {
	t.Helper()
	spec, err := bpf.LoadDatapath()
	if err != nil {
		t.Fatalf("read the collection: %v", err)
	}
	for _, m := range spec.Maps {
		m.Pinning = ebpf.PinNone
	}
	spec.Maps[bpf.DatapathMapNameIndex].MaxEntries = buckets
	spec.Maps[bpf.DatapathMapNameCells].MaxEntries = buckets * 8
	spec.Maps[bpf.DatapathMapScratch].MaxEntries = uint32(ebpf.MustPossibleCPU()) *
		uint32(bpf.DatapathScratchLimitSCRATCH_LEVELS)
	spec.Maps[bpf.DatapathMapQuestions].MaxEntries = questionBuckets
	spec.Maps[bpf.DatapathMapAnswers].MaxEntries = answerBuckets
	spec.Maps[bpf.DatapathMapMappings].MaxEntries = mappingCells
	for _, option := range options {
		option(spec)
	}
	d := &Datapath{t: t, near: nearBuckets}
	if err := spec.LoadAndAssign(&d.DatapathObjects, nil); err != nil {
		t.Fatalf("load the collection: %+v", err)
	}
	if d.events, err = ringbuf.NewReader(d.Events); err != nil {
		_ = d.Close()
		t.Fatalf("open the ring buffer: %v", err)
	}
	return d
}

// ReportTo has another test, that shares the load, hear of failures.
func (d *Datapath) ReportTo(t testing.TB) { d.t = t }

// Reset forgets what was learned, asked and counted, for a further test that shares the load.
func (d *Datapath) Reset(t testing.TB) {
	t.Helper()
	d.t = t
	d.Forget(d.Mappings)
	for bucket := range d.Questions.MaxEntries() {
		d.Put(d.Questions, bucket, bpf.DatapathQuestionBucket{})
	}
	d.ForgetAnswers()
	d.ResetCounters()
	d.Answers()
	d.Settings(func(*bpf.DatapathSettings) {})
	d.SetState(0, 0)
}

// Near has so many buckets of questions be near ones, the others far ones.
func (d *Datapath) Near(buckets uint32) {
	d.near = buckets
	d.Settings(func(*bpf.DatapathSettings) {})
}

// Settings writes the default settings, as changed by edit.
func (d *Datapath) Settings(edit func(*bpf.DatapathSettings)) {
	d.t.Helper()
	settings := bpf.DatapathSettings{
		HashKey:          Key,
		QueryTimeoutNs:   uint64(QueryTimeout),
		MinTtlNs:         uint64(MinTTL),
		MaxTtlNs:         uint64(MaxTTL),
		TtlGraceNs:       uint64(Grace),
		IndexBuckets:     d.names.buckets,
		NameCells:        d.NameCells.MaxEntries(),
		NearBuckets:      uint16(d.near),
		FarBuckets:       d.Questions.MaxEntries() - d.near,
		AnswerBuckets:    d.DatapathMaps.Answers.MaxEntries(),
		MappingCells:     d.Mappings.MaxEntries(),
		AddressesPerName: uint16(len(bpf.DatapathScratch{}.EventAddresses)),
	}
	edit(&settings)
	d.Put(d.DatapathMaps.Settings, uint32(0), settings)
}

// SetState says which generations judge and learn.
func (d *Datapath) SetState(active, learning uint32) {
	d.t.Helper()
	d.Put(d.State, uint32(0), bpf.DatapathState{Active: active, Learning: learning})
}

// Put writes one entry of a map.
func (d *Datapath) Put(m *ebpf.Map, key, value any) {
	d.t.Helper()
	if err := m.Put(key, value); err != nil {
		d.t.Fatalf("put into %v: %v", m, err)
	}
}

// Run runs a program on one packet, which begins with an Ethernet header, and gives its verdict.
func (d *Datapath) Run(program *ebpf.Program, packet []byte) uint32 {
	d.t.Helper()
	verdict, err := program.Run(&ebpf.RunOptions{Data: packet, Repeat: 1})
	if err != nil {
		d.t.Fatalf("run %v on %d bytes: %v", program, len(packet), err)
	}
	return verdict
}

// RunFrom is Run with the packet coming from an interface.
func (d *Datapath) RunFrom(program *ebpf.Program, ifindex uint32, packet []byte) uint32 {
	d.t.Helper()
	context := socketBuffer{Ifindex: ifindex}
	verdict, err := program.Run(&ebpf.RunOptions{Data: packet, Context: context, Repeat: 1})
	if err != nil {
		d.t.Fatalf("run %v from interface %d: %v", program, ifindex, err)
	}
	return verdict
}

// socketBuffer is struct __sk_buff of linux/bpf.h, as far as its order matters here.
type socketBuffer struct {
	_       [9]uint32
	_       uint32 // ingress_ifindex
	Ifindex uint32
	_       [37]uint32
}

// Remap runs the program by which the agent changes mappings, and gives how many entries came to nothing.
func (d *Datapath) Remap(entries ...bpf.DatapathRemapEntry) uint32 {
	d.t.Helper()
	request := bpf.DatapathRemapRequest{Count: uint32(len(entries))}
	copy(request.Entries[:], entries)
	var answer bpf.DatapathRemapRequest
	_, err := d.DatapathPrograms.Remap.Run(&ebpf.RunOptions{Context: request, ContextOut: &answer})
	if err != nil {
		d.t.Fatalf("run remap: %v", err)
	}
	return answer.Failed
}

// Counter gives a counter's sum over all CPUs.
func (d *Datapath) Counter(counter bpf.DatapathCounter) uint64 {
	d.t.Helper()
	var values []uint64
	if err := d.Counters.Lookup(counter, &values); err != nil {
		d.t.Fatalf("look up counter %d: %v", counter, err)
	}
	var sum uint64
	for _, value := range values {
		sum += value
	}
	return sum
}

// Counted gives every counter that is not 0.
func (d *Datapath) Counted() map[bpf.DatapathCounter]uint64 {
	d.t.Helper()
	counted := make(map[bpf.DatapathCounter]uint64)
	for counter := range bpf.DatapathCounterCOUNTER_MAX {
		if value := d.Counter(counter); value != 0 {
			counted[counter] = value
		}
	}
	return counted
}

// ResetCounters sets every counter to 0.
func (d *Datapath) ResetCounters() {
	d.t.Helper()
	zero := make([]uint64, ebpf.MustPossibleCPU())
	for counter := range bpf.DatapathCounterCOUNTER_MAX {
		d.Put(d.Counters, counter, zero)
	}
}

// Addr is an address as the maps hold it.
func Addr(address netip.Addr) bpf.DatapathAddress {
	return bpf.DatapathAddress{Bytes: address.As16()}
}

// Learned gives the match sets of an address with their expiries in ticks, expired ones too.
func (d *Datapath) Learned(address netip.Addr) map[uint32]uint64 {
	d.t.Helper()
	learned := make(map[uint32]uint64)
	for _, cell := range d.Cells() {
		if netip.AddrFrom16(cell.Address.Bytes).Unmap() != address.Unmap() {
			continue
		}
		for _, slot := range cell.Slots {
			if set, expires := Slot(slot); expires != 0 {
				learned[set] = max(learned[set], expires)
			}
		}
	}
	return learned
}

// Cells gives the cells of mappings that have an address, by their place in the table.
func (d *Datapath) Cells() map[uint32]bpf.DatapathMapping {
	d.t.Helper()
	memory, err := d.Mappings.Memory()
	if err != nil {
		d.t.Fatalf("map the mappings into memory: %v", err)
	}
	if d.mappings == nil {
		d.mappings = make([]bpf.DatapathMapping, d.Mappings.MaxEntries())
	}
	bytes := unsafe.Slice((*byte)(unsafe.Pointer(&d.mappings[0])), len(d.mappings)*int(unsafe.Sizeof(d.mappings[0])))
	if _, err := memory.ReadAt(bytes, 0); err != nil {
		d.t.Fatalf("read the mappings: %v", err)
	}
	cells := map[uint32]bpf.DatapathMapping{}
	for at := range d.mappings {
		if _, owned := d.mappings[at].Owned(); owned {
			cells[uint32(at)] = d.mappings[at]
		}
	}
	return cells
}

// Slot takes a slot of a mapping apart.
func Slot(slot uint64) (matchSet uint32, expires uint64) {
	bits := bpf.DatapathMappingLimitMAPPING_MATCH_SET_BITS
	return uint32(slot & (1<<bits - 1)), slot >> bits
}

// Ticks gives a time of the boot clock in ticks, rounded down.
func Ticks(t time.Duration) uint64 {
	return uint64(t) >> bpf.DatapathMappingLimitMAPPING_TICK_SHIFT
}

// Now reads the boot clock, by which the programs live.
func Now(t testing.TB) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		t.Fatalf("read the boot clock: %v", err)
	}
	return time.Duration(now.Nano())
}

// Forget empties a hash map, or an array.
func (d *Datapath) Forget(m *ebpf.Map) {
	d.t.Helper()
	empty := clearKeys
	if m.Type() == ebpf.Array {
		empty = zero
	}
	if err := empty(m); err != nil {
		d.t.Fatalf("empty %v: %v", m, err)
	}
}

// ForgetAnswers has the agent be told of every answer anew.
func (d *Datapath) ForgetAnswers() {
	d.t.Helper()
	for bucket := range d.DatapathMaps.Answers.MaxEntries() {
		d.Put(d.DatapathMaps.Answers, bucket, bpf.DatapathAnswerBucket{})
	}
}

// String names a datapath in failures.
func (d *Datapath) String() string { return fmt.Sprintf("datapath of build %s", bpf.Build()) }
