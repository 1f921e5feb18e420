package observe

import (
	"cmp"
	"container/heap"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nameward/nameward/api/domain"
)

const (
	// DefaultCapacity is how many mappings a table holds unless it is told otherwise.
	DefaultCapacity = 262_144
	// DefaultAddressesPerName is how many addresses a table holds of one name unless told otherwise.
	DefaultAddressesPerName = 1000

	maxFormer = 16 // aliases of earlier chains that a mapping remembers
)

// Table holds the known mappings, one for each pair of asked name and address. At its limits the
// oldest goes first: what has expired, then what was answered least lately. What expires first would be
// another order, in which a flood of long-lived answers pushed out each short-lived one as it comes. It
// is safe for concurrent use.
type Table struct {
	capacity         int
	addressesPerName int

	mu        sync.Mutex // guards all below
	byName    map[domain.Name]*group
	expiry    expiryHeap // of all entries
	owners    suffixIndex
	changes   changeLog
	changed   chan struct{} // closed at the next change; nil: nobody waits for it
	sights    sights
	byAddress addressIndex
	former    formerNames
	ended     endedLog
	evicted   uint64 // live mappings that gave way: too many in all
	overLimit uint64 // the same: too many of one name
}

// entry is a mapping with its places in the orders of the table.
type entry struct {
	mapping  Mapping
	siblings *group
	suffixes []int32 // places in the index of owners
	position int     // in the heap
	sequence uint64  // of the last change

	older, newer   *entry // in order of the last sight
	previous, next *entry // of the same address
}

// NewTable returns an empty table; a limit of 0 means the default.
func NewTable(capacity, addressesPerName int) *Table {
	return &Table{
		capacity:         cmp.Or(capacity, DefaultCapacity),
		addressesPerName: cmp.Or(addressesPerName, DefaultAddressesPerName),
		byName:           map[domain.Name]*group{},
		owners:           newSuffixIndex(),
		byAddress:        addressIndex{},
		former:           newFormerNames(cmp.Or(capacity, DefaultCapacity)),
	}
}

// Record takes in an answer. An expiry is prolonged, never shortened. It returns the mappings of the
// name that had to give way, being more than one name may have.
func (t *Table) Record(answer Answer) (dropped []Dropped) {
	if len(answer.Names) == 0 || len(answer.Addresses) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range answer.Addresses {
		owners := min(max(a.Names, 1), len(answer.Names))
		m := &Mapping{
			Domain:    answer.Names[0],
			Chain:     answer.Names[1:owners:owners],
			Address:   a.Address.Unmap(),
			Client:    answer.Client,
			FirstSeen: answer.LearnedAt,
			LastSeen:  answer.LearnedAt,
			ExpiresAt: answer.ExpiresAt,
		}
		if answer.Question == QuestionFor(m.Address) {
			m.AnsweredAt = answer.LearnedAt
		}
		dropped = append(dropped, t.put(m)...)
	}
	t.announce()
	return dropped
}

// Restore takes in mappings that were known before, with the times that they had, and returns those that
// are too many of one name.
func (t *Table) Restore(mappings []Mapping) (dropped []Dropped) {
	sorted := slices.SortedStableFunc(slices.Values(mappings), func(a, b Mapping) int { return a.LastSeen.Compare(b.LastSeen) })
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range sorted {
		dropped = append(dropped, t.put(&sorted[i])...)
	}
	t.announce()
	return dropped
}

// put takes in one mapping, and returns those of its name that gave way: one at most.
func (t *Table) put(m *Mapping) (dropped []Dropped) {
	siblings := t.byName[m.Domain]
	if siblings == nil {
		siblings = &group{}
		t.byName[m.Domain] = siblings
	}
	siblings.saw(m)
	e := siblings.find(m.Address)
	if e != nil {
		t.owners.remove(e)
		for _, gone := range e.merge(m) {
			t.former.put(m.Address, gone)
		}
		t.owners.add(e)
		heap.Fix(&t.expiry, e.position)
		t.sights.remove(e)
		t.sights.append(e)
		t.changes.add(e, len(t.expiry))
		return nil
	}
	if len(siblings.entries) >= t.addressesPerName {
		oldest := siblings.oldest()
		dropped = append(dropped, oldest.dropped())
		t.evict(oldest, m.LastSeen, &t.overLimit)
		t.changes.addDropped(oldest.mapping, m.LastSeen)
	}
	if len(t.expiry) >= t.capacity {
		oldest := t.sights.oldest
		if first := t.expiry[0]; !first.mapping.ExpiresAt.After(m.LastSeen) {
			oldest = first
		}
		t.evict(oldest, m.LastSeen, &t.evicted)
	}
	e = &entry{mapping: *m, siblings: siblings}
	siblings.add(e)
	t.byName[m.Domain] = siblings // an eviction may have emptied and dropped it
	heap.Push(&t.expiry, e)
	t.owners.add(e)
	t.sights.append(e)
	t.byAddress.add(e)
	t.changes.add(e, len(t.expiry))
	return dropped
}

// merge takes in a later answer, and returns the aliases that the entry no longer has.
func (e *entry) merge(m *Mapping) (gone []domain.Name) {
	now := m.LastSeen
	var former []FormerAlias // made anew: readers share the old list
	for _, a := range e.mapping.Former {
		switch {
		case slices.Contains(m.Chain, a.Name):
		case a.ExpiresAt.After(now):
			former = append(former, a)
		default:
			gone = append(gone, a.Name)
		}
	}
	for _, name := range e.mapping.Chain {
		switch {
		case slices.Contains(m.Chain, name):
		case len(former) < maxFormer:
			former = append(former, FormerAlias{name, e.mapping.ExpiresAt})
		default:
			gone = append(gone, name)
		}
	}
	e.mapping.Former = former
	e.mapping.Chain = m.Chain
	e.mapping.Client = m.Client
	e.mapping.FirstSeen = earlier(e.mapping.FirstSeen, m.FirstSeen)
	e.mapping.LastSeen = later(e.mapping.LastSeen, m.LastSeen)
	e.mapping.AnsweredAt = later(e.mapping.AnsweredAt, m.AnsweredAt)
	e.mapping.ExpiresAt = later(e.mapping.ExpiresAt, m.ExpiresAt)
	return gone
}

// Live returns the mappings that live now and that keep accepts (nil: all), sorted by name and address.
func (t *Table) Live(now time.Time, keep func(*Mapping) bool) []Mapping {
	t.mu.Lock()
	live := make([]Mapping, 0, len(t.expiry))
	for _, e := range t.expiry {
		if e.mapping.ExpiresAt.After(now) && (keep == nil || keep(&e.mapping)) {
			live = append(live, e.mapping)
		}
	}
	t.mu.Unlock()
	slices.SortFunc(live, func(a, b Mapping) int {
		return cmp.Or(strings.Compare(a.Domain.String(), b.Domain.String()), a.Address.Compare(b.Address))
	})
	return live
}

// Owners yields, of what lives now, each name with each of its addresses; a pair may come more than
// once. Given names, it yields those at or below them, and perhaps others; nil means all. The table is
// locked meanwhile: the caller must not call it.
func (t *Table) Owners(now time.Time, names map[string]bool) iter.Seq[Ownership] {
	return func(yield func(Ownership) bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if names == nil {
			for _, e := range t.expiry {
				if !e.owners(now, yield) {
					return
				}
			}
			return
		}
		for e := range t.owners.below(names) {
			if !e.owners(now, yield) {
				return
			}
		}
	}
}

func (e *entry) owners(now time.Time, yield func(Ownership) bool) bool {
	m, latest := &e.mapping, e.latest()
	if m.ExpiresAt.After(now) {
		if !yield(Ownership{m.Domain, m.Address, m.ExpiresAt, m.Domain, latest}) {
			return false
		}
		for _, name := range m.Chain {
			if !yield(Ownership{name, m.Address, m.ExpiresAt, m.Domain, latest}) {
				return false
			}
		}
	}
	for _, a := range m.Former {
		if a.ExpiresAt.After(now) && !yield(Ownership{a.Name, m.Address, a.ExpiresAt, m.Domain, false}) {
			return false
		}
	}
	return true
}

// latest reports whether the mapping was in the last answer to the question for its name and family.
func (e *entry) latest() bool {
	answered := e.mapping.AnsweredAt
	return !answered.IsZero() && answered.UnixNano() >= e.siblings.seen[family(e.mapping.Address)]
}

// Expiring returns the mappings that expire before a time and were in the last answer to the question
// for their name and family: those that the kernel may have prolonged without saying so.
func (t *Table) Expiring(before time.Time) []Mapping {
	t.mu.Lock()
	defer t.mu.Unlock()
	var soon []Mapping
	t.expiry.each(before, func(e *entry) {
		if e.latest() {
			soon = append(soon, e.mapping)
		}
	})
	return soon
}

// Prolong moves the expiry of a mapping on, if it is there.
func (t *Table) Prolong(name domain.Name, address netip.Addr, expiresAt time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.find(name, address)
	if e == nil || !expiresAt.After(e.mapping.ExpiresAt) {
		return
	}
	e.mapping.ExpiresAt = expiresAt
	heap.Fix(&t.expiry, e.position)
	t.changes.add(e, len(t.expiry))
	t.announce()
}

// Holds reports whether a mapping is there.
func (t *Table) Holds(name domain.Name, address netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.find(name, address) != nil
}

func (t *Table) find(name domain.Name, address netip.Addr) *entry {
	if siblings := t.byName[name]; siblings != nil {
		return siblings.find(address.Unmap())
	}
	return nil
}

// Len returns how many mappings are held, expired ones that were not collected yet included.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.expiry)
}

// Evicted returns how many live mappings had to give way to newer ones: since there were too many in
// all, and since there were too many of their name.
func (t *Table) Evicted() (inAll, ofName uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.evicted, t.overLimit
}

// Expire forgets the mappings that no longer live and returns how many those were.
func (t *Table) Expire(now time.Time) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for len(t.expiry) > 0 && !t.expiry[0].mapping.ExpiresAt.After(now) {
		t.ended.add(t.expiry[0].mapping)
		t.remove(t.expiry[0])
		n++
	}
	return n
}

// evict removes an entry, and counts it if it lives.
func (t *Table) evict(e *entry, now time.Time, counter *uint64) {
	if e.mapping.ExpiresAt.After(now) {
		*counter++
	}
	t.remove(e)
}

func (t *Table) remove(e *entry) {
	t.former.put(e.mapping.Address, e.mapping.Domain)
	for _, name := range e.mapping.Chain {
		t.former.put(e.mapping.Address, name)
	}
	for _, a := range e.mapping.Former {
		t.former.put(e.mapping.Address, a.Name)
	}
	heap.Remove(&t.expiry, e.position)
	t.owners.remove(e)
	t.sights.remove(e)
	t.byAddress.remove(e)
	e.siblings.remove(e)
	if len(e.siblings.entries) == 0 {
		delete(t.byName, e.mapping.Domain)
	}
	e.sequence = 0
}

func byExpiry(a, b *entry) int { return a.mapping.ExpiresAt.Compare(b.mapping.ExpiresAt) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
