package ingest

import (
	"container/heap"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/node"
)

// Table holds live mappings. It is safe for concurrent use; Run must be running for mappings to end at
// their expiry.
type Table struct {
	limit int
	// soonest says that another mapping ends first than Run knew.
	soonest chan struct{}

	mu sync.RWMutex // guards all below
	// nodes holds every mapping, by node and then by what identifies it there. A node that reported once
	// stays, without mappings if it has none.
	nodes map[node.ID]*reports
	// byDomain is the order of lists. byAlias and byAddress lead to the mappings of an alias, an address.
	byDomain  sorted[alias]
	byAlias   sorted[alias]
	byAddress sorted[addressed]
	expiries  expiries
	watches   map[*Watch]struct{}
	stats     Stats
	ended     endedLog
}

// Stats counts what the table did since it was made, and what it holds.
type Stats struct {
	// Watches is how many readers follow; CutOff how many were too slow.
	Mappings, Watches          int
	Observed, Expired, Evicted uint64
	CutOff                     uint64
}

// reports is what one node reported.
type reports struct {
	entries map[reported]*entry
	// current is the number of the last snapshot that the node began; open until it ends.
	current uint64
	open    bool
}

type reported struct {
	domain  domain.Name
	address string // 4 or 16 bytes, a third of a netip.Addr in the map
}

// alias is a place in an index by name, of the name asked or of an alias. The name stands beside the entry: most
// comparisons go by it alone, and so do not fetch the entry from memory.
type alias struct {
	name  domain.Name
	entry *entry
}

// addressed is a place in the index by address.
type addressed struct {
	address netip.Addr
	entry   *entry
}

// Batch is a part of what a node saw.
type Batch struct {
	Mappings []*Mapping
	// SnapshotBegin and SnapshotEnd enclose batches that together are all that lives on the node.
	SnapshotBegin, SnapshotEnd bool
}

// New makes an empty table that holds at most limit mappings.
func New(limit int) *Table {
	return &Table{
		limit:     limit,
		soonest:   make(chan struct{}, 1),
		nodes:     map[node.ID]*reports{},
		byDomain:  sorted[alias]{compare: compareAliases},
		byAlias:   sorted[alias]{compare: compareAliases},
		byAddress: sorted[addressed]{compare: compareAddresses},
		watches:   map[*Watch]struct{}{},
	}
}

func compareAliases(a, b alias) int {
	if c := compareNames(a.name.String(), b.name.String()); c != 0 {
		return c
	}
	return a.entry.Compare(b.entry.Position)
}

func compareAddresses(a, b addressed) int {
	if c := a.address.Compare(b.address); c != 0 {
		return c
	}
	return a.entry.Compare(b.entry.Position)
}

// named and addressedBy are the places of an entry.
func named(e *entry) alias           { return alias{e.Domain, e} }
func addressedBy(e *entry) addressed { return addressed{e.Address, e} }

// at is an entry to look for a position with.
func at(p Position) *entry { return &entry{Mapping: &Mapping{Position: p}} }

// Observe takes in what a node saw: each mapping lives as given, in place of what was known of it, or has
// ended when its expiry is not behind now. The mappings are the table's from then on.
func (t *Table) Observe(from node.ID, batch Batch, now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := t.nodes[from]
	if known == nil {
		known = &reports{entries: map[reported]*entry{}}
		t.nodes[from] = known
	}
	if batch.SnapshotBegin {
		known.current++
		known.open = true
	}
	for _, m := range batch.Mappings {
		t.put(known, m, now)
	}
	t.stats.Observed += uint64(len(batch.Mappings))
	if batch.SnapshotEnd && known.open {
		known.open = false
		for _, e := range known.entries {
			if e.report != known.current {
				t.remove(e)
			}
		}
	}
}

func (t *Table) put(known *reports, m *Mapping, now time.Time) {
	key := keyOf(m)
	if latest := now.Add(maxLife); m.Expires.After(latest) {
		m.Expires = latest
	}
	e, exists := known.entries[key]
	if exists && !e.FirstSeen.IsZero() && (m.FirstSeen.IsZero() || e.FirstSeen.Before(m.FirstSeen)) {
		m.FirstSeen = e.FirstSeen
	}
	switch {
	case !m.Expires.After(now) && exists:
		t.remove(e)
		return
	case !m.Expires.After(now):
		return
	case exists:
		e.report = known.current
		t.replace(e, m)
	default:
		e = &entry{Mapping: m, report: known.current}
		known.entries[key] = e
		t.byDomain.put(named(e))
		t.byAddress.put(addressedBy(e))
		t.putAliases(e)
		heap.Push(&t.expiries, e)
		t.announce(e.Mapping, nil)
	}
	if len(known.entries) > shareOf(t.limit) {
		t.evictOwn(known)
	}
	if len(t.expiries) > t.limit {
		t.stats.Evicted++
		t.remove(t.expiries[0])
	}
	if e.place == 0 {
		t.wake()
	}
}

// evictOwn makes room for a node that has all that it may: those of its own mappings that end first go, many at once.
func (t *Table) evictOwn(known *reports) {
	own := slices.SortedFunc(maps.Values(known.entries), func(a, b *entry) int { return a.Expires.Compare(b.Expires) })
	for _, e := range own[:len(own)/evictPart+1] {
		t.stats.Evicted++
		t.remove(e)
	}
}

// replace puts what is newly known of a mapping in place of what was.
func (t *Table) replace(e *entry, m *Mapping) {
	// The old strings are those that the map shares.
	m.Domain, m.Node = e.Domain, e.Node
	before := e.Mapping
	if slices.Equal(before.Chain, m.Chain) && slices.Equal(before.Former, m.Former) {
		e.Mapping = m
	} else {
		t.removeAliases(e)
		e.Mapping = m
		t.putAliases(e)
	}
	heap.Fix(&t.expiries, e.place)
	t.announce(m, before)
}

func (t *Table) remove(e *entry) {
	delete(t.nodes[e.Node].entries, keyOf(e.Mapping))
	t.byDomain.remove(named(e))
	t.byAddress.remove(addressedBy(e))
	t.removeAliases(e)
	heap.Remove(&t.expiries, e.place)
	t.announce(nil, e.Mapping)
}

func (t *Table) putAliases(e *entry) {
	for _, name := range e.aliases() {
		t.byAlias.put(alias{name, e})
	}
}

func (t *Table) removeAliases(e *entry) {
	for _, name := range e.aliases() {
		t.byAlias.remove(alias{name, e})
	}
}

// aliases returns the names beside the asked one that lead to the mapping.
func (m *Mapping) aliases() []domain.Name {
	if len(m.Former) == 0 {
		return m.Chain
	}
	names := slices.Clone(m.Chain)
	for _, former := range m.Former {
		if !slices.Contains(names, former.Name) {
			names = append(names, former.Name)
		}
	}
	return names
}

func keyOf(m *Mapping) reported {
	return reported{m.Domain, string(m.Address.AsSlice())}
}

// Forget ends every mapping of a node.
func (t *Table) Forget(id node.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended.forget(id)
	known := t.nodes[id]
	if known == nil {
		return
	}
	for _, e := range known.entries {
		t.remove(e)
	}
	delete(t.nodes, id)
}

// Stats returns the counts.
func (t *Table) Stats() Stats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	stats := t.stats
	stats.Mappings, stats.Watches = len(t.expiries), len(t.watches)
	return stats
}

// Run ends mappings at their expiry until ctx ends.
func (t *Table) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.soonest:
		case <-timer.C:
		}
		if next, ok := t.expire(time.Now()); ok {
			timer.Reset(time.Until(next))
		}
	}
}

// expireAtOnce bounds how long readers wait while many mappings end together.
const expireAtOnce = 1000

// expire ends what has expired and returns when the next does.
func (t *Table) expire(now time.Time) (next time.Time, ok bool) {
	for {
		t.mu.Lock()
		for range expireAtOnce {
			if len(t.expiries) == 0 || t.expiries[0].Expires.After(now) {
				break
			}
			t.stats.Expired++
			t.ended.add(t.expiries[0].Mapping)
			t.remove(t.expiries[0])
		}
		ok = len(t.expiries) > 0
		if ok {
			next = t.expiries[0].Expires
		}
		t.mu.Unlock()
		if !ok || next.After(now) {
			return next, ok
		}
	}
}

func (t *Table) wake() {
	select {
	case t.soonest <- struct{}{}:
	default:
	}
}

// below reports whether name is base or a name below it, as text: an escaped dot may look like one
// between labels, so a pattern has the last word.
func below(name, base string) bool {
	head, ok := strings.CutSuffix(name, base)
	return ok && (head == "" || strings.HasSuffix(head, "."))
}
