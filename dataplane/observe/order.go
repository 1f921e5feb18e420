package observe

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/nameward/nameward/api/domain"
)

// sights has the entries in order of their last sight, the oldest first.
type sights struct{ oldest, newest *entry }

func (s *sights) append(e *entry) {
	e.older, e.newer = s.newest, nil
	if s.newest == nil {
		s.oldest = e
	} else {
		s.newest.newer = e
	}
	s.newest = e
}

func (s *sights) remove(e *entry) {
	if e.older == nil {
		s.oldest = e.newer
	} else {
		e.older.newer = e.newer
	}
	if e.newer == nil {
		s.newest = e.older
	} else {
		e.newer.older = e.older
	}
	e.older, e.newer = nil, nil
}

// addressIndex finds the entries of an address.
type addressIndex map[netip.Addr]*entry

func (x addressIndex) add(e *entry) {
	first := x[e.address]
	if e.next = first; first != nil {
		first.previous = e
	}
	x[e.address] = e
}

func (x addressIndex) remove(e *entry) {
	if e.next != nil {
		e.next.previous = e.previous
	}
	switch {
	case e.previous != nil:
		e.previous.next = e.next
	case e.next != nil:
		x[e.address] = e.next
	default:
		delete(x, e.address)
	}
	e.next, e.previous = nil, nil
}

// OwnersOf yields each name that an address belongs to now; one may come more than once. The table is
// locked meanwhile: the caller must not call it.
func (t *Table) OwnersOf(now time.Time, address netip.Addr) iter.Seq[Ownership] {
	return func(yield func(Ownership) bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		for e := t.byAddress[address.Unmap()]; e != nil; e = e.next {
			if !t.ownersIn(e, now, yield) {
				return
			}
		}
	}
}

// Dropped is a mapping that gave way to a newer one of its name.
type Dropped struct {
	Names     []domain.Name // that owned the address, the asked one first
	Address   netip.Addr
	LastSeen  time.Time
	ExpiresAt time.Time
}

func (t *Table) dropped(e *entry) Dropped {
	names := append([]domain.Name{e.domain}, e.chain...)
	for _, a := range e.formerAliases() {
		names = append(names, a.Name)
	}
	return Dropped{names, e.address, t.time(e.lastSeen), t.time(e.expiresAt)}
}

// oldest returns the mapping of the name that was answered least lately. What the last answer said is
// younger than all else: the kernel renews it without saying so each time, and it is what an application
// uses now.
func (g *group) oldest() *entry {
	return slices.MinFunc(g.entries, func(a, b *entry) int {
		if a.latest() != b.latest() {
			if a.latest() {
				return 1
			}
			return -1
		}
		return cmp.Or(cmp.Compare(a.lastSeen, b.lastSeen), cmp.Compare(a.expiresAt, b.expiresAt))
	})
}
