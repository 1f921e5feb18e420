package datapath

import (
	"runtime/debug"
	"time"
)

// manyNames is from how many names on a change is prepared for behind its back.
const manyNames = 4096

// prepareNext does, after a change of many names, what the next change would have to, however small that is:
// it tells the idle generation the names as they are. Then it gives back the memory that the change took.
func (d *Datapath) prepareNext() error {
	prepared := false
	err := d.locked(func() error {
		idle := 1 - d.active
		stale := d.names.stale[idle]
		if !d.inForce || time.Since(d.switched) < settled || stale != nil && len(stale) < manyNames {
			return nil
		}
		prepared = true
		d.lowering.Settle()
		return d.names.write(idle, d.lowering, d.patterns)
	})
	if prepared {
		debug.FreeOSMemory()
	}
	return err
}
