package dataplane

import (
	"os"
	"runtime/debug"
)

// garbageShare is how much garbage may lie about, in percent of what is in use. An agent is a guest on its node:
// it collects twice as often as Go's programs do, which is a few milliseconds now and then, and takes a
// quarter less memory.
const garbageShare = 50

// keepSmall bounds the memory of the process, unless whoever runs it says how.
func keepSmall() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbageShare)
	}
}
