package controlplane

import (
	"os"
	"runtime/debug"
)

// garbageShare is how much garbage may lie about, in percent of what is in use. Go's own share, 100, would have a server
// keep as much room as it needs for all of its policies and nodes.
const garbageShare = 50

// keepSmall bounds the memory of the process, unless whoever runs it says how.
func keepSmall() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbageShare)
	}
}
