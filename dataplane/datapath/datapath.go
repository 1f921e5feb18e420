package datapath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
	"github.com/nameward/nameward/dataplane/observe"
)

// Datapath is the pinned programs and maps, opened. Its methods are safe for concurrent use; all that
// write to the maps wait for one another.
type Datapath struct {
	cfg    Config
	log    *slog.Logger
	table  *observe.Table
	flows  *observe.Flows
	kernel *kernel

	mu        sync.Mutex // guards all below
	journal   *journal
	events    *ring
	lowering  *lower.State
	names     *names
	active    uint32
	switched  time.Time             // when active last changed
	grace     <-chan struct{}       // closes when no program runs that began before that
	patterns  lower.GeneralPatterns // of the rule set in force
	held      [2]*generation        // nil: not known, to be read
	links     links
	positions []*positions             // of rule sets that were in force, the newest last
	inForce   bool                     // the names of lowering are those of the active generation
	overdue   []observe.Dropped        // mappings that were too many, whose doors are to be shut
	replaced  map[door]bool            // match sets that addresses had before the last switch
	taken     map[netip.Addr]time.Time // addresses of which match sets were taken lately

	applied bool // a rule set is in force that this process applied

	predecessors []*predecessor // all pins of other layouts
	heirs        []*predecessor // those that are taken over from
	overlapSince time.Time      // from when on programs of both layouts see questions; zero: never

	warned    time.Time // when it was last said that mappings gave way; of the one who collects
	evicted   uint64    // how many had until then
	inherited atomic.Pointer[inherited]
	tight     atomic.Bool   // mappings have little room left
	counted   atomic.Uint64 // mappings that were made before the last pass over them
}

// Open adopts the pins below cfg.PinDir or makes them, and restores what the journal knows into table.
// It starts nothing. What was in force stays in force until the first Apply. Denied and audited
// connections go to flows.
func Open(cfg Config, table *observe.Table, flows *observe.Flows) (*Datapath, error) {
	d := &Datapath{cfg: cfg, log: cfg.Log, table: table, flows: flows, taken: map[netip.Addr]time.Time{}}
	if d.log == nil {
		d.log = slog.New(slog.DiscardHandler)
	}
	clock, err := readClock()
	if err != nil {
		return nil, err
	}
	// The journal first: its lock says that no other agent works on the same pins.
	if d.journal, err = openJournal(cfg.StateDir, clock, d.log); err != nil {
		return nil, err
	}
	if err := d.open(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Datapath) open() (err error) {
	if d.kernel, err = openKernel(d.cfg); err != nil {
		return err
	}
	settings, err := d.kernel.settings()
	if err != nil {
		return err
	}
	if err := d.openPredecessors(); err != nil {
		return err
	}
	next, err := d.nextMatchSet(settings)
	if err != nil {
		return err
	}
	memory, err := d.journal.memory()
	if err != nil {
		d.log.Warn("match sets of the process before are not known: names are matched anew", "err", err)
	}
	d.lowering = lower.NewState(next, memory)
	if d.names, err = openNames(d.kernel); err != nil {
		return err
	}
	if err := d.adoptState(); err != nil {
		return err
	}
	if d.links, err = readLinks(d.kernel); err != nil {
		return err
	}
	if d.events, err = openRing(d.kernel.Events); err != nil {
		return err
	}
	if err := d.restore(); err != nil {
		return err
	}
	d.openInherited()
	return d.countMappings()
}

// adoptState ends a switch that a crash interrupted: what was in force stays in force.
func (d *Datapath) adoptState() error {
	var state bpf.DatapathState
	if err := d.kernel.State.Lookup(uint32(0), &state); err != nil {
		return fmt.Errorf("read state: %w", err)
	}
	d.active = state.Active
	d.switched, d.grace = time.Now(), beginGrace()
	return d.putState(state.Active, state.Active)
}

func (d *Datapath) putState(active, learning uint32) error {
	if err := d.kernel.State.Put(uint32(0), &bpf.DatapathState{Active: active, Learning: learning}); err != nil {
		return fmt.Errorf("write state: %w", err)
	}
	return nil
}

// Close lets go of the pins and leaves them in force.
func (d *Datapath) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, p := range d.predecessors {
		p.close()
	}
	if d.events != nil {
		errs = append(errs, d.events.close())
	}
	if d.kernel != nil {
		errs = append(errs, d.kernel.close())
	}
	if d.journal != nil {
		clock, err := readClock()
		errs = append(errs, err, d.journal.close(clock))
	}
	return errors.Join(errs...)
}

// Apply puts a rule set in force, whole: every packet is judged by what was in force before or by this
// one, and a name that was learned before opens its addresses under this one too. On error what was in
// force before stays; enforce.ErrFull is wrapped when a map cannot hold the rule set.
func (d *Datapath) Apply(ctx context.Context, rules *ruleset.RuleSet) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.settle(ctx); err != nil {
		return err
	}
	if err := d.forgetReplaced(); err != nil {
		return err
	}
	if err := d.names.free(); err != nil {
		return err
	}
	d.inForce = false
	tables, err := d.lowering.Lower(rules)
	d.names.change(tables.Changed)
	if err != nil {
		return fmt.Errorf("lower rule set: %w", err)
	}
	if err := d.remember(); err != nil {
		return err
	}
	idle := 1 - d.active
	if err := d.fill(idle, tables); err != nil {
		return err
	}
	order := positionsOf(rules)
	if err := d.kernel.putRuleSet(idle, order); err != nil {
		return err
	}
	d.keepPositions(order)
	if err := d.switchTo(ctx, idle); err != nil {
		return errors.Join(err, d.putState(d.active, d.active))
	}
	d.patterns = tables.Patterns
	return nil
}

// remember makes sure that no match set ever comes to mean something else, before any is used.
func (d *Datapath) remember() error {
	memory, changed := d.lowering.Memory()
	if !changed {
		return nil
	}
	if d.lowering.NextMatchSet() > lower.MaxMatchSet {
		return fmt.Errorf("name match sets: all %d were given out (`nameward-agent cleanup` starts anew)", lower.MaxMatchSet)
	}
	settings, err := d.kernel.settings()
	if err != nil {
		return err
	}
	settings.NextMatchSet = uint64(d.lowering.NextMatchSet())
	if err := d.kernel.putSettings(settings); err != nil {
		return err
	}
	if err := d.journal.putMemory(memory); err != nil {
		// Only the next process would know less, and would give out new match sets. The journal said so.
		return nil //nolint:nilerr // see above
	}
	d.lowering.Kept()
	return nil
}

// fill makes the idle generation what the tables say. Nothing judges by it meanwhile.
func (d *Datapath) fill(idle uint32, tables *lower.Tables) error {
	have := d.held[idle]
	if have == nil {
		var err error
		if have, err = d.kernel.readGeneration(idle); err != nil {
			return err
		}
	}
	want, err := layOut(tables, idle, uint32(d.names.key[0])) //nolint:gosec // some bits of it
	if err != nil {
		return err
	}
	d.held[idle] = nil // until all is written
	if err := d.names.write(idle, d.lowering, tables.Patterns); err != nil {
		return err
	}
	if err := d.kernel.writeGeneration(idle, have, want); err != nil {
		return err
	}
	if err := d.links.reclass(d.kernel, idle, tables.Interfaces); err != nil {
		return err
	}
	d.held[idle] = want
	return nil
}

// switchTo puts the idle generation in force. Before it judges, whatever was learned is learned for it
// too: the programs do so from now on, and of what they learned before every name is looked up again.
func (d *Datapath) switchTo(ctx context.Context, idle uint32) error {
	if err := d.putState(d.active, idle); err != nil {
		return err
	}
	// A program that began before learns for the active generation alone. What a name loses by the change is no
	// reason to refuse what it opens by then: its event has to be among those that are taken in here.
	if d.names.replaces(d.active, idle) {
		if err := awaitGrace(ctx, beginGrace()); err != nil {
			return err
		}
	}
	if err := d.drain(); err != nil {
		return err
	}
	replaced, err := d.remapAll(idle)
	if err != nil {
		return err
	}
	if err := d.putState(idle, idle); err != nil {
		return err
	}
	d.active, d.switched, d.grace = idle, time.Now(), beginGrace()
	d.applied, d.inForce, d.replaced = true, true, replaced
	return nil
}
