package conntrack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/observe"
)

// scan is one walk through the table.
type scan struct {
	conntrack *Conntrack
	change    *change
	table     *kernelTable
	origins   *origins
	owners    *owners     // nil: not asked for yet
	found     []candidate // that may still send
	over      []candidate // of which the kernel remembers the ports
	count     enforce.CutCount
	left      int // connections that were cut at an earlier change and stay so
}

// candidate is a connection of which the verdict may have changed.
type candidate struct {
	entry entry
	was   bool // cut at an earlier change
	// released: no policy selects it any longer.
	released bool
	// as is the connection as the rules see it: once for each interface that it may come from.
	as   []ruleset.Connection
	fate fate
}

func (c *Conntrack) newScan(change *change) (*scan, error) {
	origins, err := readOrigins()
	if err != nil {
		return nil, err
	}
	table, err := openTable()
	if err != nil {
		origins.close()
		return nil, err
	}
	return &scan{conntrack: c, change: change, table: table, origins: origins}, nil
}

func (s *scan) close() {
	s.table.close()
	s.origins.close()
}

// find lists the connections that the change concerns.
func (s *scan) find(ctx context.Context) error {
	unread, err := s.table.list(func(e *entry) {
		if ctx.Err() == nil {
			s.consider(e)
		}
	})
	s.count.Faults += uint64(unread) //nolint:gosec // a count
	if err == nil && unread > 0 {
		err = incomplete(s.count.Faults, errShortEntry)
	}
	return errors.Join(err, ctx.Err())
}

func (s *scan) consider(e *entry) {
	asked := e.asked()
	// One that was denied is there only if somebody else let it pass, or if it was opened on the ports of another.
	was := e.labelled(cutLabel) || e.labelled(deniedLabel) && !e.labelled(reopenedLabel)
	local := s.origins.own(asked.source.Addr())
	if s.conntrack.neverCut(asked, local) {
		return
	}
	candidate := candidate{entry: *e, was: was, as: s.connections(asked, local)}
	candidate.released = s.conntrack.cfg.Accepts && e.labelled(acceptedLabel) && !s.selected(candidate.as)
	for _, connection := range candidate.as {
		if was || candidate.released || s.change.concerns(connection) {
			if e.over() {
				s.over = append(s.over, candidate)
			} else {
				s.found = append(s.found, candidate)
			}
			return
		}
	}
}

// selected reports whether a policy selects the connection, whichever interface it comes from.
func (s *scan) selected(as []ruleset.Connection) bool {
	return slices.ContainsFunc(as, func(c ruleset.Connection) bool { return len(s.change.after.Select(c).Policies) > 0 })
}

// connections returns what the rules see of a connection.
func (s *scan) connections(t tuple, local bool) []ruleset.Connection {
	c := ruleset.Connection{
		Local: local, Destination: t.destination.Addr(), Protocol: t.ruleProtocol(), Port: t.destination.Port(),
	}
	if local {
		return s.processes(c, t)
	}
	c.Source = t.source.Addr()
	if !s.change.byInterface {
		return []ruleset.Connection{c}
	}
	names := s.origins.behind(c.Source)
	if len(names) == 0 {
		names = s.origins.all()
	}
	all := make([]ruleset.Connection, 0, len(names))
	for _, name := range names {
		c.Interface = name
		all = append(all, c)
	}
	return all
}

// processes returns a connection of the node as one of the process that opened it. Where that is not
// known it may be any that rules name: the kernel, which judges the packets of what is cut, knows.
func (s *scan) processes(c ruleset.Connection, t tuple) []ruleset.Connection {
	if len(s.change.processes) == 0 {
		return []ruleset.Connection{c}
	}
	if s.owners == nil {
		s.owners = readOwners()
	}
	all := []ruleset.Connection{c}
	found := s.owners.of(t)
	for _, o := range found {
		if o.cgroup == "" {
			found = nil
			break
		}
	}
	if len(found) == 0 {
		for _, w := range s.change.processes {
			c.UID, c.Cgroup, c.Unit = w.UID, w.Cgroup, w.Unit
			all = append(all, c)
		}
		return all
	}
	all = all[:0]
	for _, o := range found {
		c.UID, c.Cgroup = &o.uid, o.cgroup
		all = append(all, c)
	}
	return all
}

// fate is the worst of what becomes of the connection, whichever interface it comes from.
func (s *scan) fate(found *candidate, names observe.Names) fate {
	worst := allowed
	for _, connection := range found.as {
		worst = max(worst, s.change.judge(connection, names))
	}
	if worst > untouched && s.origins.toNode(found.as[0].Destination) {
		return untouched
	}
	return worst
}

// act does what the change asks for, of each connection that was found. It goes on after a fault.
func (s *scan) act(ctx context.Context) error {
	all := slices.Concat(s.found, s.over)
	addresses := map[netip.Addr]bool{}
	for i := range all {
		addresses[all[i].as[0].Destination] = true
	}
	names, err := s.conntrack.cfg.Names(addresses)
	if err != nil {
		return err
	}
	var first error
	for some := range slices.Chunk(all, inOneCall) {
		if err := ctx.Err(); err != nil {
			return err //nolint:wrapcheck // the caller's own
		}
		for i := range some {
			some[i].fate = s.fate(&some[i], names[some[i].as[0].Destination])
		}
		if err := s.meet(some); err != nil && first == nil {
			first = err
		}
	}
	if first != nil {
		return incomplete(s.count.Faults, first)
	}
	return nil
}

// meet brings connections to their fates. It returns the first fault, and counts all.
func (s *scan) meet(some []candidate) (first error) {
	changes, of := make([]relabelling, 0, len(some)), make([]*candidate, 0, len(some))
	for i := range some {
		found := &some[i]
		if change := found.relabelling(); len(change.set)+len(change.unset) > 0 {
			changes, of = append(changes, change), append(of, found)
		}
		switch {
		case found.was && found.fate != allowed:
			s.left++
		case !found.was && found.fate == kept && !found.entry.over():
			s.count.Kept++
		}
	}
	for i, err := range s.table.relabel(changes) {
		if err := s.ended(of[i], err); err != nil {
			s.count.Faults++
			if first == nil {
				first = err
			}
		}
	}
	return first
}

// relabelling is what the fate changes of the label.
func (c *candidate) relabelling() relabelling {
	change := relabelling{entry: &c.entry}
	if c.released {
		change.unset = append(change.unset, acceptedLabel)
	}
	switch {
	case c.was && c.fate == allowed:
		change.unset = append(change.unset, cutLabel, deniedLabel, reopenedLabel)
	case !c.was && c.fate == cut:
		change.set = append(change.set, cutLabel)
		change.unset = append(change.unset, deniedLabel, reopenedLabel) // the next denial is to count
	case c.was && c.fate != allowed && c.entry.labelled(reopenedLabel):
		change.unset = append(change.unset, deniedLabel, reopenedLabel)
	}
	return change
}

// ended counts what became of a connection whose label was to change, and does what that could not. One that is over
// is cut too, since its packets would pass, but nobody misses it.
func (s *scan) ended(found *candidate, err error) error {
	if !found.was && found.fate == cut {
		return s.cut(found, err)
	}
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("change label of connection: %w", err)
	}
	if found.was && found.fate == allowed {
		s.count.Restored++
	}
	return nil
}

func (s *scan) cut(found *candidate, labelled error) (err error) {
	var was bool
	if found.entry.ofOther() {
		was, err = s.table.forget(&found.entry) // no packet of this side would be judged
	} else {
		was, err = s.table.cut(&found.entry, labelled)
	}
	if was && !found.entry.over() {
		s.count.Cut++
	}
	return err
}
