package dataplane

import (
	"os"
	"runtime/debug"
)

// garbageShare is how much garbage may lie about, in percent of what is in use. An agent is a guest on its node:
// it collects more often than Go's programs do, and pays for the memory that it leaves with processor time.
const garbageShare = 50

// keepSmall bounds the memory of the process, unless whoever runs it says how.
func keepSmall() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbageShare)
	}
}
