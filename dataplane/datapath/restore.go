package datapath

import (
	"time"

	"github.com/nameward/nameward/dataplane/observe"
)

// restore hands on what the process before wrote down, as far as it lives.
func (d *Datapath) restore() error {
	clock, err := readClock()
	if err != nil {
		return err
	}
	mappings, former, err := d.journal.mappings(clock)
	if err != nil {
		// Less is known of names; the kernel's doors are as they are.
		d.log.Warn("journal of mappings is not whole", "err", err)
	}
	if err != nil || d.journal.forgot() {
		d.table.Missed()
	}
	d.overdue = d.table.Restore(mappings)
	d.table.RestoreFormer(former)
	d.flows.Restore(mappings)
	d.prolong(clock, time.Unix(1<<40, 0))
	d.table.Expire(clock.now)
	return nil
}

// mendJournal writes down what is known, where the journal could not be written before.
func (d *Datapath) mendJournal(c clock) error {
	d.journal.mend(c, d.lowering.Recall, func() []observe.Mapping { return d.table.Live(c.now, nil) })
	return nil
}

// prolong moves on the expiry of mappings that the kernel prolonged without an event, of those that
// the table believes to expire before a time.
func (d *Datapath) prolong(c clock, before time.Time) {
	for _, m := range d.table.Expiring(before) {
		if expiry := d.answerExpiry(m.Domain, m.Address); expiry > c.toTicks(m.ExpiresAt) {
			d.table.Prolong(m.Domain, m.Address, c.fromTicks(expiry))
		}
	}
}
