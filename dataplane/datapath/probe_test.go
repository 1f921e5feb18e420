package datapath

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/preflight"
)

func TestProbe(t *testing.T) {
	f := newFixture(t)
	for _, r := range Probe(filepath.Join(f.cfg.PinDir, "below", "there")) {
		if r.Level != preflight.OK {
			t.Errorf("%s: %s", r.Name, r.Detail)
		}
	}
	levels := map[string]preflight.Level{}
	for _, r := range Probe(t.TempDir()) {
		levels[r.Name] = r.Level
		if r.Level != preflight.OK && (r.Detail == "" || r.Remedy == "") {
			t.Errorf("%s: neither detail nor remedy", r.Name)
		}
	}
	if levels["bpf file system"] != preflight.Failed {
		t.Error("an ordinary directory passes for a bpf file system")
	}
}

// TestProbeNamesFeatures: a program, map or helper that the kernel does not have is named.
func TestProbeNamesFeatures(t *testing.T) {
	bpftest.RequirePrivileged(t)
	spec := &ebpf.CollectionSpec{
		Maps: map[string]*ebpf.MapSpec{"m": {Type: ebpf.MapType(250)}, "a": {Type: ebpf.Array}},
		Programs: map[string]*ebpf.ProgramSpec{"p": {Type: ebpf.SocketFilter, Instructions: asm.Instructions{
			asm.FnMapLookupElem.Call(), asm.FnSkbSetTunnelKey.Call(), asm.Return(),
		}}},
	}
	details := map[string]string{}
	for _, r := range probeFeatures(spec) {
		if r.Level == preflight.Failed {
			details[r.Name] = r.Detail
		}
	}
	if len(details) != 2 || !strings.Contains(details["map types"], "250") || !strings.HasPrefix(details["helpers"], "FnSkbSetTunnelKey") {
		t.Errorf("got %v, want the map type and the helper that are missing", details)
	}
}

// TestPinProbe: a program that is pinned for a rule goes with it.
func TestPinProbe(t *testing.T) {
	f := newFixture(t)
	path, remove, err := PinProbe(filepath.Join(f.cfg.PinDir, "below"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ebpf.LoadPinnedProgram(path, nil); err != nil {
		t.Error(err)
	}
	if err := remove(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pin is left: %v", err)
	}
}
