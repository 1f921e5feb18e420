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
// mapping that expires first goes first. It is safe for concurrent use.
type Table struct {
	capacity         int
	addressesPerName int

	mu      sync.Mutex // guards all below
	entries map[pair]*entry
	byName  map[domain.Name]*group
	expiry  expiryHeap
	owners  suffixIndex
	changes changeLog
	changed chan struct{} // closed and made anew at each change
	evicted uint64
	ended   endedLog
}

type pair struct {
	name    domain.Name
	address netip.Addr
}

// entry is a mapping with its places in the orders of the table.
type entry struct {
	mapping  Mapping
	siblings *group
	suffixes []int32 // places in the index of owners
	position int     // in the heap
	sequence uint64  // of the last change
}

// group is the mappings of one asked name.
type group struct {
	entries []*entry
	seen    [2]time.Time // the last answer to a question for IPv4 addresses, for IPv6 ones
}

// NewTable returns an empty table; a limit of 0 means the default.
func NewTable(capacity, addressesPerName int) *Table {
	return &Table{
		capacity:         cmp.Or(capacity, DefaultCapacity),
		addressesPerName: cmp.Or(addressesPerName, DefaultAddressesPerName),
		entries:          map[pair]*entry{},
		byName:           map[domain.Name]*group{},
		owners:           newSuffixIndex(),
		changed:          make(chan struct{}),
	}
}

// Record takes in an answer. An expiry is prolonged, never shortened.
func (t *Table) Record(answer Answer) {
	if len(answer.Names) == 0 || len(answer.Addresses) == 0 {
		return
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
		t.put(m)
	}
	t.announce()
}

// Restore takes in mappings that were known before, with the times that they had.
func (t *Table) Restore(mappings []Mapping) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range mappings {
		t.put(&mappings[i])
	}
	t.announce()
}

func (t *Table) put(m *Mapping) {
	key := pair{m.Domain, m.Address}
	siblings := t.byName[m.Domain]
	if siblings == nil {
		siblings = &group{}
		t.byName[m.Domain] = siblings
	}
	siblings.seen[family(m.Address)] = later(siblings.seen[family(m.Address)], m.AnsweredAt)
	e, known := t.entries[key]
	if known {
		t.owners.remove(e)
		e.merge(m)
		t.owners.add(e)
		heap.Fix(&t.expiry, e.position)
		t.changes.add(e, len(t.entries))
		return
	}
	if len(siblings.entries) >= t.addressesPerName {
		t.evict(slices.MinFunc(siblings.entries, byExpiry))
	}
	if len(t.entries) >= t.capacity {
		t.evict(t.expiry[0])
	}
	e = &entry{mapping: *m, siblings: siblings}
	t.entries[key] = e
	siblings.entries = append(siblings.entries, e)
	t.byName[m.Domain] = siblings // an eviction may have emptied and dropped it
	heap.Push(&t.expiry, e)
	t.owners.add(e)
	t.changes.add(e, len(t.entries))
}

func (e *entry) merge(m *Mapping) {
	now := m.LastSeen
	var former []FormerAlias // made anew: readers share the old list
	for _, a := range e.mapping.Former {
		if a.ExpiresAt.After(now) && !slices.Contains(m.Chain, a.Name) {
			former = append(former, a)
		}
	}
	for _, name := range e.mapping.Chain {
		if !slices.Contains(m.Chain, name) && len(former) < maxFormer {
			former = append(former, FormerAlias{name, e.mapping.ExpiresAt})
		}
	}
	e.mapping.Former = former
	e.mapping.Chain = m.Chain
	e.mapping.Client = m.Client
	e.mapping.FirstSeen = earlier(e.mapping.FirstSeen, m.FirstSeen)
	e.mapping.LastSeen = later(e.mapping.LastSeen, m.LastSeen)
	e.mapping.AnsweredAt = later(e.mapping.AnsweredAt, m.AnsweredAt)
	e.mapping.ExpiresAt = later(e.mapping.ExpiresAt, m.ExpiresAt)
}

// Live returns the mappings that live now and that keep accepts (nil: all), sorted by name and address.
func (t *Table) Live(now time.Time, keep func(*Mapping) bool) []Mapping {
	t.mu.Lock()
	live := make([]Mapping, 0, len(t.entries))
	for _, e := range t.entries {
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
			for _, e := range t.entries {
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
	return !answered.IsZero() && !answered.Before(e.siblings.seen[family(e.mapping.Address)])
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
	e := t.entries[pair{name, address.Unmap()}]
	if e == nil || !expiresAt.After(e.mapping.ExpiresAt) {
		return
	}
	e.mapping.ExpiresAt = expiresAt
	heap.Fix(&t.expiry, e.position)
	t.changes.add(e, len(t.entries))
	t.announce()
}

// Len returns how many mappings are held, expired ones that were not collected yet included.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.entries)
}

// Evicted returns how many live mappings had to give way to newer ones.
func (t *Table) Evicted() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.evicted
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

func (t *Table) evict(e *entry) {
	t.remove(e)
	t.evicted++
}

func (t *Table) remove(e *entry) {
	heap.Remove(&t.expiry, e.position)
	t.owners.remove(e)
	delete(t.entries, pair{e.mapping.Domain, e.mapping.Address})
	i := slices.Index(e.siblings.entries, e)
	e.siblings.entries = slices.Delete(e.siblings.entries, i, i+1)
	if len(e.siblings.entries) == 0 {
		delete(t.byName, e.mapping.Domain)
	}
	e.sequence = 0
}

func family(address netip.Addr) int {
	if address.Is4() {
		return 0
	}
	return 1
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
