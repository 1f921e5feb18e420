package controlplane

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestSpareMemoryIsGivenBackWhenLittleHappens(t *testing.T) {
	const mb = 1 << 20
	for name, c := range map[string]struct {
		before, now heap
		want        bool
	}{
		"after a burst":                   {heap{allocated: 900 * mb}, heap{allocated: 901 * mb, live: 80 * mb, held: 170 * mb}, true},
		"in a burst":                      {heap{allocated: 900 * mb}, heap{allocated: 1300 * mb, live: 80 * mb, held: 170 * mb}, false},
		"a small server":                  {heap{allocated: 90 * mb}, heap{allocated: 91 * mb, live: 10 * mb, held: 25 * mb}, false},
		"a large one with little to give": {heap{allocated: 900 * mb}, heap{allocated: 901 * mb, live: 900 * mb, held: 1000 * mb}, false},
		"all of it is live":               {heap{}, heap{live: 200 * mb, held: 190 * mb}, false},
	} {
		if got := c.now.hasSpare(c.before); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// What the runtime says of itself is what hasSpare is made for.
func TestReadHeap(t *testing.T) {
	before := readHeap()
	garbage := make([][]byte, 64)
	for i := range garbage {
		garbage[i] = make([]byte, 1<<20)
	}
	full := readHeap()
	if grown := full.allocated - before.allocated; grown < 64<<20 {
		t.Errorf("64 MiB were allocated, and %d bytes are told of", grown)
	}
	runtime.KeepAlive(garbage)
	debug.FreeOSMemory()
	if after := readHeap(); after.held+(48<<20) > full.held || after.live > after.held {
		t.Errorf("held %d bytes with 64 MiB, and %d without, of which %d live", full.held, after.held, after.live)
	}
}
