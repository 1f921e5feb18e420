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
	epoch
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

// NewTable returns an empty table; a limit of 0 means the default.
func NewTable(capacity, addressesPerName int) *Table {
	return &Table{
		epoch:            epoch{time.Now()},
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
		siblings = &group{seen: [2]instant{never, never}}
		t.byName[m.Domain] = siblings
	}
	siblings.saw(m.Address, t.instant(m.AnsweredAt))
	e := siblings.find(m.Address)
	if e != nil {
		t.owners.remove(e)
		for _, gone := range t.merge(e, m) {
			t.former.put(m.Address, gone)
		}
		t.owners.add(e)
		heap.Fix(&t.expiry, int(e.position))
		t.sights.remove(e)
		t.sights.append(e)
		t.changes.add(e, len(t.expiry))
		return nil
	}
	if len(siblings.entries) >= t.addressesPerName {
		oldest := siblings.oldest()
		dropped = append(dropped, t.dropped(oldest))
		t.evict(oldest, m.LastSeen, &t.overLimit)
		t.changes.addDropped(oldest, t.instant(m.LastSeen))
	}
	if len(t.expiry) >= t.capacity {
		oldest := t.sights.oldest
		if first := t.expiry[0]; first.expiresAt <= t.instant(m.LastSeen) {
			oldest = first
		}
		t.evict(oldest, m.LastSeen, &t.evicted)
	}
	e = t.entry(m)
	e.siblings = siblings
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
func (t *Table) merge(e *entry, m *Mapping) (gone []domain.Name) {
	now := m.LastSeen
	var former []FormerAlias // made anew: readers share the old list
	for _, a := range e.formerAliases() {
		switch {
		case slices.Contains(m.Chain, a.Name):
		case a.ExpiresAt.After(now):
			former = append(former, a)
		default:
			gone = append(gone, a.Name)
		}
	}
	for _, name := range e.chain {
		switch {
		case slices.Contains(m.Chain, name):
		case len(former) < maxFormer:
			former = append(former, FormerAlias{name, t.time(e.expiresAt)})
		default:
			gone = append(gone, name)
		}
	}
	e.setFormer(former)
	e.chain, e.client = m.Chain, m.Client
	e.firstSeen = min(e.firstSeen, t.instant(m.FirstSeen))
	e.lastSeen = max(e.lastSeen, t.instant(m.LastSeen))
	e.answeredAt = max(e.answeredAt, t.instant(m.AnsweredAt))
	e.expiresAt = max(e.expiresAt, t.instant(m.ExpiresAt))
	return gone
}

// Live returns the mappings that live now and that keep accepts (nil: all), sorted by name and address.
func (t *Table) Live(now time.Time, keep func(*Mapping) bool) []Mapping {
	t.mu.Lock()
	live := make([]Mapping, 0, len(t.expiry))
	var m Mapping
	for _, e := range t.expiry {
		if e.expiresAt <= t.instant(now) {
			continue
		}
		if m = t.mapping(e); keep == nil || keep(&m) {
			live = append(live, m)
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
				if !t.ownersIn(e, now, yield) {
					return
				}
			}
			return
		}
		for e := range t.owners.below(names) {
			if !t.ownersIn(e, now, yield) {
				return
			}
		}
	}
}

// ownersIn yields those of one entry, and reports whether to go on.
func (t *Table) ownersIn(e *entry, now time.Time, yield func(Ownership) bool) bool {
	if latest, ends := e.latest(), t.time(e.expiresAt); ends.After(now) {
		if !yield(Ownership{e.domain, e.address, ends, e.domain, latest}) {
			return false
		}
		for _, name := range e.chain {
			if !yield(Ownership{name, e.address, ends, e.domain, latest}) {
				return false
			}
		}
	}
	for _, a := range e.formerAliases() {
		if a.ExpiresAt.After(now) && !yield(Ownership{a.Name, e.address, a.ExpiresAt, e.domain, false}) {
			return false
		}
	}
	return true
}

// latest reports whether the mapping was in the last answer to the question for its name and family.
func (e *entry) latest() bool {
	return e.answeredAt != never && e.answeredAt >= e.siblings.seen[family(e.address)]
}

// Expiring returns the mappings that expire before a time and were in the last answer to the question
// for their name and family: those that the kernel may have prolonged without saying so.
func (t *Table) Expiring(before time.Time) []Mapping {
	t.mu.Lock()
	defer t.mu.Unlock()
	var soon []Mapping
	t.expiry.each(t.instant(before), func(e *entry) {
		if e.latest() {
			soon = append(soon, t.mapping(e))
		}
	})
	return soon
}

// Prolong moves the expiry of a mapping on, if it is there.
func (t *Table) Prolong(name domain.Name, address netip.Addr, expiresAt time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.find(name, address)
	if e == nil || t.instant(expiresAt) <= e.expiresAt {
		return
	}
	e.expiresAt = t.instant(expiresAt)
	heap.Fix(&t.expiry, int(e.position))
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
	for len(t.expiry) > 0 && t.expiry[0].expiresAt <= t.instant(now) {
		t.ended.add(t.mapping(t.expiry[0]))
		t.remove(t.expiry[0])
		n++
	}
	return n
}

// evict removes an entry, and counts it if it lives.
func (t *Table) evict(e *entry, now time.Time, counter *uint64) {
	if e.expiresAt > t.instant(now) {
		*counter++
	}
	t.remove(e)
}

func (t *Table) remove(e *entry) {
	t.former.put(e.address, e.domain)
	for _, name := range e.chain {
		t.former.put(e.address, name)
	}
	for _, a := range e.formerAliases() {
		t.former.put(e.address, a.Name)
	}
	heap.Remove(&t.expiry, int(e.position))
	t.owners.remove(e)
	t.sights.remove(e)
	t.byAddress.remove(e)
	e.siblings.remove(e)
	if len(e.siblings.entries) == 0 {
		delete(t.byName, e.domain)
	}
	e.sequence = 0
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
