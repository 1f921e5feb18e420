package bpf_test

import (
	"bytes"
	"reflect"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf/bpftest"
)

// TestUsedCollectionIsEmpty: a collection that another test had is as one that was just loaded.
func TestUsedCollectionIsEmpty(t *testing.T) {
	var used *ebpf.Program
	t.Run("filled", func(t *testing.T) {
		e := newExchange(t)
		used = e.DnsResponse
		e.resolve("api.example.com", "api.example.com. 60 IN A 192.0.2.1")
		eachMap(e.Datapath, func(name string, m *ebpf.Map) {
			last := make([]byte, m.KeySize())
			if m.Type() == ebpf.Array {
				last = []byte{byte(m.MaxEntries() - 1), byte((m.MaxEntries() - 1) >> 8), byte((m.MaxEntries() - 1) >> 16), 0}
			}
			if m.Type() != ebpf.RingBuf && m.Type() != ebpf.PerCPUArray {
				if err := m.Put(last, bytes.Repeat([]byte{0xff}, int(m.ValueSize()))); err != nil {
					t.Fatalf("%s: %v", name, err)
				}
			}
		})
	})
	t.Run("empty", func(t *testing.T) {
		d := bpftest.Load(t, 1024)
		if d.DnsResponse != used {
			t.Fatal("another collection")
		}
		if answers, flows := d.ReadEvents(); len(answers)+len(flows) > 0 {
			t.Errorf("%d answers and %d flow events are left", len(answers), len(flows))
		}
		if counted := d.Counted(); len(counted) > 0 {
			t.Errorf("counted %v", counted)
		}
		eachMap(d, func(name string, m *ebpf.Map) {
			switch m.Type() {
			case ebpf.Hash, ebpf.LRUHash, ebpf.LPMTrie:
				if key, err := m.NextKeyBytes(nil); err != nil || key != nil {
					t.Errorf("%s: key %x is left, %v", name, key, err)
				}
			case ebpf.Array:
				for key := range m.MaxEntries() {
					value, err := m.LookupBytes(key)
					if known := name == "Settings" || name == "Limits"; err != nil || !known && len(bytes.Trim(value, "\x00")) > 0 {
						t.Errorf("%s: entry %d is left: %.80x, %v", name, key, value, err)
					}
				}
			}
		})
	})
}

func eachMap(d *bpftest.Datapath, visit func(name string, m *ebpf.Map)) {
	maps := reflect.ValueOf(d.DatapathMaps)
	for i := range maps.NumField() {
		visit(maps.Type().Field(i).Name, maps.Field(i).Interface().(*ebpf.Map))
	}
}
