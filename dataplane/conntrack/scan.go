package conntrack

import (
	"context"
	"errors"
	"net/netip"
	"slices"

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
	owners    *owners // nil: not asked for yet
	found     []candidate
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
	as []ruleset.Connection
}

func (c *Conntrack) newScan(change *change) (*scan, error) {
	origins, err := readOrigins()
	if err != nil {
		return nil, err
	}
	table, err := openTable()
	if err != nil {
		return nil, err
	}
	return &scan{conntrack: c, change: change, table: table, origins: origins}, nil
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
	// One that was denied is there only if somebody else let it pass.
	was := e.labelled(cutLabel) || e.labelled(deniedLabel)
	local := s.origins.own(asked.source.Addr())
	if s.conntrack.neverCut(asked, local) {
		return
	}
	candidate := candidate{entry: *e, was: was, as: s.connections(asked, local)}
	candidate.released = s.conntrack.cfg.Accepts && e.labelled(acceptedLabel) && !s.selected(candidate.as)
	for _, connection := range candidate.as {
		if was || candidate.released || s.change.concerns(connection) {
			s.found = append(s.found, candidate)
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
	addresses := map[netip.Addr]bool{}
	for i := range s.found {
		addresses[s.found[i].as[0].Destination] = true
	}
	names, err := s.conntrack.cfg.Names(addresses)
	if err != nil {
		return err
	}
	var first error
	for i := range s.found {
		if err := ctx.Err(); err != nil {
			return err //nolint:wrapcheck // the caller's own
		}
		found := &s.found[i]
		if err := s.meet(found, s.fate(found, names[found.as[0].Destination])); err != nil {
			s.count.Faults++
			if first == nil {
				first = err
			}
		}
	}
	if first != nil {
		return incomplete(s.count.Faults, first)
	}
	return nil
}

// meet brings a connection to its fate. One that is over is cut too, since its packets would pass, but
// nobody misses it.
func (s *scan) meet(found *candidate, fate fate) error {
	if found.released {
		if err := s.table.release(&found.entry); err != nil {
			return err
		}
	}
	switch {
	case found.was && fate == allowed:
		err := s.table.restore(&found.entry)
		if err == nil {
			s.count.Restored++
		}
		return err
	case found.was:
		s.left++
	case fate == kept && !found.entry.over():
		s.count.Kept++
	case fate == cut:
		was, err := s.table.cut(&found.entry)
		if was && !found.entry.over() {
			s.count.Cut++
		}
		return err
	}
	return nil
}
