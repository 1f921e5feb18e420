package datapath

import "fmt"

// Fault says why what is known would not outlive the process; nil when it would.
func (d *Datapath) Fault() error {
	if fault := d.journal.fault.Load(); fault != nil {
		return fmt.Errorf("write journal of mappings: %s", *fault)
	}
	return nil
}
