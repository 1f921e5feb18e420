package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
)

func TestIndexIsReadBack(t *testing.T) {
	f := newFixture(t)
	var list []string
	for i := range 2000 {
		list = append(list, fmt.Sprintf("n%d.%s.example.com", i, strings.Repeat("x", i%64/2+1)))
	}
	f.apply(t, hostRules(t, allow(list...)))
	f.apply(t, hostRules(t, allow(list[:1000]...)))
	want := f.names.nameIndex
	got, err := readNameIndex(f.names.key, f.kernel.NameIndex, f.kernel.NameCells)
	if err != nil {
		t.Fatal(err)
	}
	if len(slices.Collect(got.all())) != len(slices.Collect(want.all())) {
		t.Errorf("got %d names, want %d", len(slices.Collect(got.all())), len(slices.Collect(want.all())))
	}
	for e := range want.all() {
		if g := got.find(e.name); g == nil || *g != *e {
			t.Errorf("%s: got %+v, want %+v", e.name, g, e)
		}
	}
	f.restart(t)
	f.apply(t, hostRules(t, allow("a.example.com")))
	f.apply(t, hostRules(t, allow("a.example.com")))
	f.apply(t, hostRules(t, allow("a.example.com")))
	if n := len(slices.Collect(f.names.all())); n != 1 {
		t.Errorf("%d names are left in the index, want 1", n)
	}
}

// Whatever pins a crash leaves behind, the next start completes.
func TestStartCompletesWhatACrashLeft(t *testing.T) {
	f := newFixture(t)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	programs, err := os.ReadDir(f.cfg.programDir())
	if err != nil {
		t.Fatal(err)
	}
	for i, pin := range programs {
		if i%2 == 0 {
			if err := os.Remove(filepath.Join(f.cfg.programDir(), pin.Name())); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.open(t)
	f.apply(t, hostRules(t, allow("a.example.com")))
	f.resolve(t, "a.example.com", 60, "a.example.com. IN A 198.51.100.1")
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("not open with completed pins")
	}
}

func TestProgramsOfOtherMapsAreNotAdopted(t *testing.T) {
	f := newFixture(t)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(f.cfg.mapDir(), bpf.DatapathMapState)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f.cfg, f.table, f.flows); !errors.Is(err, ErrLayoutMismatch) {
		t.Errorf("got %v, want ErrLayoutMismatch", err)
	}
}

func TestRetireAndRemovePins(t *testing.T) {
	f := newFixture(t)
	other := filepath.Join(f.cfg.programDir(), "dns_query_local-0123456789ab")
	if err := f.kernel.programs[bpf.DatapathProgDnsUntrusted].Pin(filepath.Join(f.cfg.programDir(), "spare")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(f.cfg.programDir(), "spare"), other); err != nil {
		t.Fatal(err)
	}
	if err := f.RetirePrograms(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(other); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other build's program: got %v, want none", err)
	}
	if _, err := os.Stat(f.Programs().DNSQueryLocal); err != nil {
		t.Errorf("this build's program: %v", err)
	}
	if err := errors.Join(f.Close(), Remove(f.cfg.PinDir), Remove(f.cfg.PinDir)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.cfg.PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory of pins: got %v, want none", err)
	}
}

// What the kernel does not take leaves no pin behind.
func TestRefusedOpenLeavesNothing(t *testing.T) {
	f := newFixture(t)
	cfg := f.cfg
	cfg.PinDir, cfg.StateDir, cfg.MaxMappings = filepath.Join(filepath.Dir(f.cfg.PinDir), "other"), t.TempDir(), 1<<31
	if d, err := Open(cfg, f.table, f.flows); err == nil {
		_ = d.Close()
		t.Fatal("the kernel takes a map of 2³¹ entries: this test needs another fault")
	}
	if _, err := os.Stat(cfg.PinDir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("pins are left: %v", err)
	}
}

// A build that counts more than the one before adopts all but the counters.
func TestFewerCountersAreReplaced(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t))
	if f.opens(t, "192.0.2.1:443") {
		t.Fatal("opens without a rule")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(f.cfg.programDir()); err != nil {
		t.Fatal(err)
	}
	pin := filepath.Join(f.cfg.mapDir(), bpf.DatapathMapCounters)
	if err := os.Remove(pin); err != nil {
		t.Fatal(err)
	}
	fewer, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer fewer.Close()
	if err := fewer.Pin(pin); err != nil {
		t.Fatal(err)
	}
	f.open(t)
	if f.opens(t, "192.0.2.1:443") {
		t.Error("opens after the restart")
	}
	counters, err := f.Counters()
	if err != nil || counters["verdicts_deny"] != 1 || counters["flow_events_told"] != 1 {
		t.Errorf("counters %v, error %v, want one verdict, told", counters, err)
	}
}
