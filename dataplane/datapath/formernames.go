package datapath

import (
	"fmt"
	"net/netip"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/observe"
)

// TakeIn hands on what was learned before the call and not yet handed on.
func (d *Datapath) TakeIn() error { return d.locked(d.drain) }

// NamesOf returns the names that addresses have or ever had, those of answers included that were learned
// before the call and not yet handed on.
func (d *Datapath) NamesOf(addresses map[netip.Addr]bool) (map[netip.Addr]observe.Names, error) {
	if err := d.TakeIn(); err != nil {
		return nil, err
	}
	lost, err := d.kernel.counter(bpf.DatapathCounterCOUNTER_EVENT_LOST)
	if err != nil {
		return nil, err
	}
	if lost > 0 {
		d.table.Missed()
	}
	return d.table.NamesOf(addresses), nil
}

// Holds reports whether the rule set in force is this one, as far as it can be told by its policies and
// how many rules they have.
func (d *Datapath) Holds(rules *ruleset.RuleSet) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var digest uint64
	if err := d.kernel.RuleSets.Lookup(d.active, &digest); err != nil {
		return false, fmt.Errorf("read rule set of generation: %w", err)
	}
	return digest == positionsOf(rules).digest, nil
}

// HoldsNone reports whether no rule set was ever put in force since the pins were made.
func (d *Datapath) HoldsNone() (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var digest uint64
	if err := d.kernel.RuleSets.Lookup(d.active, &digest); err != nil {
		return false, fmt.Errorf("read rule set of generation: %w", err)
	}
	return digest == 0, nil
}
