package datapath

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
)

// nextMatchSet is above every match set that any layout gave out: what one means it means in all.
func (d *Datapath) nextMatchSet(own bpf.DatapathSettings) (lower.MatchSet, error) {
	next := own.NextMatchSet
	for _, p := range d.predecessors {
		if !p.readable() {
			continue
		}
		other, err := p.nextMatchSet()
		if err != nil {
			return 0, err
		}
		next = max(next, other)
	}
	return lower.MatchSet(next), nil //nolint:gosec // 28 bits
}

// Inherit takes over what programs of other layouts learned, once a start and before the first Apply.
// inUse are the pins that rules name. It reports whether programs of another layout judge at this moment:
// then the rules are to move on to this build's only when these have seen questions and answers beside the
// others for as long as a question waits for its answer, and Carry was called again.
func (d *Datapath) Inherit(inUse []string) (judged bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Where this build's programs judge, the others are what an attempt to move on left behind.
	if slices.ContainsFunc(inUse, below(d.cfg.programDir())) {
		return false, nil
	}
	for _, p := range d.predecessors {
		judges := slices.ContainsFunc(inUse, below(p.dir))
		judged = judged || judges
		if !p.readable() || len(inUse) > 0 && !judges {
			continue
		}
		if p.events == nil {
			d.log.Warn("names that were resolved while no agent ran are not known: events of another release have another format", "pins", p.dir)
			d.table.Missed()
		}
		d.heirs = append(d.heirs, p)
	}
	return judged, d.carry(false)
}

func below(dir string) func(string) bool {
	return func(path string) bool { return strings.HasPrefix(path, dir+"/") }
}

// Judges reports whether a rule set is in force in the maps of this layout.
func (d *Datapath) Judges() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.applied
}

// Carry takes over what programs of other layouts learned since Inherit. It is called first when the programs
// of both begin to see questions.
func (d *Datapath) Carry() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.overlapSince.IsZero() {
		d.overlapSince = time.Now()
	}
	return d.carry(false)
}

func (d *Datapath) carry(movedOn bool) error {
	if err := d.inheritCounters(movedOn); err != nil {
		return err
	}
	clock, err := readClock()
	if err != nil {
		return err
	}
	for _, p := range d.heirs {
		if p.events != nil {
			if err := d.drainRing(p.events, learnedElsewhere); err != nil {
				return err
			}
		}
		doors, err := p.doors(clock.toTicks(clock.now))
		if err != nil {
			return err
		}
		d.inheritEvicted(p)
		if err := d.remap(doors); err != nil {
			return err
		}
	}
	return d.dropOverdue()
}

// toldTwice reports whether this build's programs tell of what another's told too: questions that both refuse, those
// included that cannot be read, which a rule refuses all the same.
func (d *Datapath) toldTwice(s *stopped) bool {
	const byRule = bpf.DatapathFlowFlagFLOW_ENFORCED_RULE | bpf.DatapathFlowFlagFLOW_AUDITED_RULE
	unread := s.Reason == bpf.DatapathFlowReasonFLOW_UNREADABLE && s.Flags&byRule != 0
	return (s.NameBytes != 0 || unread) && !d.overlapSince.IsZero() && s.seen.After(d.overlapSince)
}

// retireLayouts ends the takeover, with what the others learned by the last moment: over TCP connections of
// which this build's programs did not see the start.
func (d *Datapath) retireLayouts() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	errs := []error{d.carry(true)}
	for _, p := range d.predecessors {
		p.close()
		if err := errors.Join(removeLayout(p.dir), d.journal.forgetLayout(p.layout)); err != nil {
			errs = append(errs, fmt.Errorf("retire layout %s: %w", p.layout, err))
		}
	}
	d.predecessors, d.heirs = nil, nil
	return errors.Join(errs...)
}

// inherited is what was counted before this layout's own counters began, by name. Added to them it wraps
// around to the sum.
type inherited map[string]uint64

func (i *inherited) of(counter string) uint64 {
	if i == nil {
		return 0
	}
	return (*i)[counter]
}

// openInherited never fails: without a journal, which it says itself, less is counted, and another layout
// takes nothing over.
func (d *Datapath) openInherited() {
	before, err := d.journal.inherited(layout)
	if err != nil {
		d.log.Warn("what was counted before an upgrade is not known", "err", err)
	}
	d.inherited.Store(&before)
	_ = d.journal.describe()
}

// inheritEvicted takes over how many mappings the kernel dropped of a layout that left it to the kernel, and did not
// count them, until the takeover began: what was made, and neither collected nor is there.
func (d *Datapath) inheritEvicted(p *predecessor) {
	if _, counts := p.before[mappingsEvicted]; counts {
		return
	}
	sums := maps.Clone(*d.inherited.Load())
	if _, known := sums[mappingsEvicted]; known {
		return
	}
	earlier, _ := d.journal.inherited(p.layout)                                           // inheritCounters warned
	gone := int64(p.before["mappings_created"] - p.before["mappings_collected"] - p.held) //nolint:gosec // wraps to the negative difference
	sums[mappingsEvicted] = earlier.of(mappingsEvicted) + uint64(max(gone, 0))            //nolint:gosec // not negative
	d.inherited.Store(&sums)
	_ = d.journal.putInherited(layout, sums) // the journal says itself that it is not written
}

// inheritCounters adds up what other layouts counted. Before the rules move on, the programs of both see
// questions and answers: what both counted counts once, but for what comes while the counters are read. Who
// judges, alone counts verdicts, to the end.
func (d *Datapath) inheritCounters(movedOn bool) error {
	for _, p := range d.heirs {
		now, err := p.counted()
		if err != nil {
			return err
		}
		own := map[string]uint64{}
		for i, name := range counterNames {
			if own[name], err = d.kernel.counter(bpf.DatapathCounter(i)); err != nil { //nolint:gosec // an index
				return err
			}
		}
		earlier, err := d.journal.inherited(p.layout)
		if err != nil {
			d.log.Warn("what was counted before an upgrade is not known", "err", err)
		}
		if p.before == nil {
			p.before, p.ownBefore = now, own
			d.inherited.Store(&inherited{})
		}
		sums := maps.Clone(*d.inherited.Load()) // others read it meanwhile
		for name, before := range p.before {
			verdict := strings.HasPrefix(name, "verdicts_")
			if movedOn && !verdict {
				continue
			}
			alone := now[name] - before
			if both := own[name] - p.ownBefore[name]; !verdict {
				alone = max(alone, both) - both
			}
			sums[name] = earlier.of(name) + before + alone - p.ownBefore[name]
		}
		d.inherited.Store(&sums)
	}
	if len(d.heirs) > 0 {
		_ = d.journal.putInherited(layout, *d.inherited.Load()) // the journal says itself that it is not written
	}
	return nil
}
