package conntrack

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/preflight"
)

func TestProbe(t *testing.T) {
	newMachine(t, true)
	if r := Probe(); r.Level != preflight.OK || r.Remedy != "" {
		t.Errorf("got %+v, want it met", r)
	}
	// What the thread may do it may take up again.
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var held [2]unix.CapUserData
	if err := unix.Capget(&header, &held[0]); err != nil {
		t.Fatal(err)
	}
	none := held
	none[0].Effective, none[1].Effective = 0, 0
	if err := unix.Capset(&header, &none[0]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Capset(&header, &held[0]); err != nil {
			t.Error(err)
		}
	}()
	if r := Probe(); r.Level != preflight.Failed || r.Detail == "" || r.Remedy == "" {
		t.Errorf("without capabilities: got %+v, want a remedy", r)
	}
}
