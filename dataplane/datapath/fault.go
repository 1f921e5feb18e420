package datapath

import (
	"fmt"
	"sync"
)

// fault is what fails and may pass: the last outcome of writing the journal.
type fault struct {
	mu  sync.Mutex // guards err
	err error
}

func (f *fault) set(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fault) get() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// journalled takes the outcome of writing the journal. The kernel enforces without it; only a restart would
// know less.
func (d *Datapath) journalled(err error) {
	if err != nil {
		err = fmt.Errorf("write journal of mappings: %w", err)
		if d.fault.get() == nil {
			d.log.Warn("journal of mappings is not written", "err", err)
		}
	}
	d.fault.set(err)
}

// Fault returns why the journal is not written; nil when it is.
func (d *Datapath) Fault() error { return d.fault.get() }
