package bpftest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
)

// shared are the collections that tests have given back, by their buckets of names: the kernel takes a
// second or more of a CPU to verify the programs, and next to none to empty the maps.
var shared struct {
	sync.Mutex // guards idle
	idle       map[uint32][]*Datapath
}

// borrow gives a test a collection that another has given back, as empty as a new one; nil if there is
// none.
func borrow(t testing.TB, buckets uint32) *Datapath {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	idle := shared.idle[buckets]
	if len(idle) == 0 {
		return nil
	}
	d := idle[len(idle)-1]
	shared.idle[buckets] = idle[:len(idle)-1]
	d.t = t
	if err := d.empty(); err != nil {
		t.Fatalf("empty a collection that is used again: %v", err)
	}
	return d
}

func giveBack(d *Datapath) {
	shared.Lock()
	defer shared.Unlock()
	if shared.idle == nil {
		shared.idle = map[uint32][]*Datapath{}
	}
	shared.idle[d.names.buckets] = append(shared.idle[d.names.buckets], d)
}

// empty brings every map to where it was when it was made.
func (d *Datapath) empty() error {
	var errs []error
	maps := reflect.ValueOf(d.DatapathMaps)
	for i := range maps.NumField() {
		m := maps.Field(i).Interface().(*ebpf.Map)
		var err error
		switch m.Type() {
		case ebpf.Array:
			err = zero(m)
		case ebpf.PerCPUArray:
			err = zeroPerCPU(m)
		case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
			err = clearKeys(m)
		case ebpf.RingBuf:
			err = d.drain()
		default:
			err = fmt.Errorf("how is a map of type %v emptied?", m.Type())
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", maps.Type().Field(i).Name, err))
		}
	}
	return errors.Join(errs...)
}

// zero writes an array in one call, or without any where its memory can be had.
func zero(m *ebpf.Map) error {
	if m.Flags()&unix.BPF_F_MMAPABLE != 0 {
		return zeroMemory(m)
	}
	keys := make([]uint32, m.MaxEntries())
	for i := range keys {
		keys[i] = uint32(i)
	}
	value := reflect.ArrayOf(int(m.ValueSize()), reflect.TypeFor[byte]())
	values := reflect.MakeSlice(reflect.SliceOf(value), len(keys), len(keys))
	_, err := m.BatchUpdate(keys, values.Interface(), nil)
	return err
}

func zeroMemory(m *ebpf.Map) error {
	memory, err := m.Memory()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(memory, 0), io.LimitReader(zeros{}, int64(memory.Size())))
	return err
}

// zeros reads as any number of zeros.
type zeros struct{}

func (zeros) Read(to []byte) (int, error) {
	clear(to)
	return len(to), nil
}

func zeroPerCPU(m *ebpf.Map) error {
	values := make([][]byte, ebpf.MustPossibleCPU())
	for i := range values {
		values[i] = make([]byte, m.ValueSize())
	}
	for key := range m.MaxEntries() {
		if err := m.Put(key, values); err != nil {
			return err
		}
	}
	return nil
}

// clearKeys deletes every key of a hash or a trie.
func clearKeys(m *ebpf.Map) error {
	for {
		key, err := m.NextKeyBytes(nil)
		if err != nil || key == nil {
			return err
		}
		if err := m.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
}

// drain takes what is in the ring buffer.
func (d *Datapath) drain() error {
	d.events.SetDeadline(time.Unix(1, 0)) // in the past: what is there, and no waiting
	for {
		if _, err := d.events.Read(); errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// begin writes what every test begins with.
func (d *Datapath) begin() {
	d.t.Helper()
	d.cells = newCells()
	d.names = &names{datapath: d, buckets: d.NameIndex.MaxEntries()}
	d.Settings(func(*bpf.DatapathSettings) {})
}
