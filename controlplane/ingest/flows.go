package ingest

import (
	"container/heap"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/api/node"
)

const (
	// FlowAge is for how long a flow event is kept after it was last seen.
	FlowAge = 24 * time.Hour
	// flowSweep is how often flow events that are too old are looked for.
	flowSweep = time.Minute
)

// FlowEvent is a flow event of a node. It is immutable.
type FlowEvent struct {
	Node node.ID
	flow.Event
	// Began tells the count that the node goes on with from one that it began anew; Before is the sum of those that it
	// began before.
	Began  time.Time
	Before uint64
}

// Position returns what identifies the flow event.
func (e *FlowEvent) Position() flow.Position { return flow.Position{Node: e.Node, Key: e.Key} }

// compare orders events by position.
func (e *FlowEvent) compare(other *FlowEvent) int {
	if c := strings.Compare(e.Node.String(), other.Node.String()); c != 0 {
		return c
	}
	return e.Compare(&other.Key)
}

// Flows holds the flow events of all nodes, each until it was not seen for FlowAge, or is the one that was
// not seen for longest of too many: the last is counted. It is safe for concurrent use; Run must be running
// for them to age.
type Flows struct {
	limit int

	mu sync.RWMutex // guards all below
	// byPosition is the order of lists, and has the events of a node side by side. The others lead to the
	// events of a name, an address, a policy.
	byPosition sorted[*flowEntry]
	byName     sorted[flowName]
	byAddress  sorted[*flowEntry]
	byPolicy   sorted[*flowEntry]
	oldest     flowAges
	// ofNode counts the events of each node.
	ofNode  map[node.ID]int
	watches map[*FlowWatch]struct{}
	stats   FlowStats
}

// FlowStats counts what the store of flow events did since it was made, and what it holds.
type FlowStats struct {
	// Watches is how many readers follow; CutOff how many were too slow.
	Events, Watches            int
	Observed, Expired, Evicted uint64
	CutOff                     uint64
}

// flowEntry is a flow event in the store. The event is replaced, never edited.
type flowEntry struct {
	*FlowEvent
	// seen is when the event was last seen, by the server's clock at the latest.
	seen  time.Time
	place int // in oldest
}

type flowName struct {
	name  domain.Name
	entry *flowEntry
}

// NewFlows makes an empty store that holds at most limit flow events.
func NewFlows(limit int) *Flows {
	return &Flows{
		limit:      limit,
		byPosition: sorted[*flowEntry]{compare: compareFlows},
		byName:     sorted[flowName]{compare: compareFlowNames},
		byAddress:  sorted[*flowEntry]{compare: compareFlowAddresses},
		byPolicy:   sorted[*flowEntry]{compare: compareFlowPolicies},
		watches:    map[*FlowWatch]struct{}{},
		ofNode:     map[node.ID]int{},
	}
}

func compareFlows(a, b *flowEntry) int { return a.compare(b.FlowEvent) }

func compareFlowNames(a, b flowName) int {
	if c := compareNames(a.name.String(), b.name.String()); c != 0 {
		return c
	}
	return compareFlows(a.entry, b.entry)
}

func compareFlowAddresses(a, b *flowEntry) int {
	if c := a.Destination.Address.Compare(b.Destination.Address); c != 0 {
		return c
	}
	return compareFlows(a, b)
}

func compareFlowPolicies(a, b *flowEntry) int {
	if c := strings.Compare(a.Policy, b.Policy); c != 0 {
		return c
	}
	return compareFlows(a, b)
}

// Observe takes in flow events as a node holds them. What it holds already it knows by when the count began,
// so that an event that is told again counts nothing twice, and a count that was begun anew adds. The events
// are the store's from then on.
func (f *Flows) Observe(from node.ID, events []*flow.Event, now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range events {
		if now.Sub(e.LastSeen) < FlowAge {
			f.put(&FlowEvent{Node: from, Event: *e, Began: e.FirstSeen}, now)
		}
	}
	f.stats.Observed += uint64(len(events))
}

func (f *Flows) put(e *FlowEvent, now time.Time) {
	seen := e.LastSeen
	if seen.After(now) {
		seen = now // a clock that is ahead must not keep it for longer
	}
	known := f.find(e.Position())
	if known == nil {
		f.add(e, seen)
		return
	}
	e.Before = known.Before
	if !known.Began.Equal(e.Began) {
		e.Before = known.Count
	}
	e.Count = max(e.Before+e.Count, known.Count)
	f.replace(known, e, seen)
}

func (f *Flows) add(e *FlowEvent, seen time.Time) {
	known := &flowEntry{FlowEvent: e, seen: seen}
	f.byPosition.put(known)
	f.index(known)
	heap.Push(&f.oldest, known)
	f.announce(e)
	if f.ofNode[e.Node]++; f.ofNode[e.Node] > shareOf(f.limit) {
		f.evictOwn(e.Node)
	}
	if len(f.oldest) > f.limit {
		f.stats.Evicted++
		f.remove(f.oldest[0])
	}
}

// replace puts what is newly known of an event in place of what was.
func (f *Flows) replace(known *flowEntry, e *FlowEvent, seen time.Time) {
	before := known.FlowEvent
	e.Node, e.Key = before.Node, before.Key // strings that are shared already
	if before.FirstSeen.Before(e.FirstSeen) {
		e.FirstSeen = before.FirstSeen
	}
	if before.LastSeen.After(e.LastSeen) {
		e.LastSeen = before.LastSeen
	}
	if e.Count == before.Count && e.LastSeen.Equal(before.LastSeen) && e.Began.Equal(before.Began) && e.Before == before.Before {
		return // told again
	}
	if slices.Equal(before.Domains, e.Domains) {
		e.Domains = before.Domains
		known.FlowEvent = e
	} else {
		f.unindexNames(known)
		known.FlowEvent = e
		f.indexNames(known)
	}
	if seen.After(known.seen) {
		known.seen = seen
		heap.Fix(&f.oldest, known.place)
	}
	f.announce(e)
}

func (f *Flows) find(position flow.Position) *flowEntry {
	chunk, place, found := f.byPosition.find(flowAt(position))
	if !found {
		return nil
	}
	return f.byPosition.chunks[chunk][place]
}

// flowAt is an entry to look for a position with.
func flowAt(p flow.Position) *flowEntry {
	return &flowEntry{FlowEvent: &FlowEvent{Node: p.Node, Event: flow.Event{Key: p.Key}}}
}

func (f *Flows) index(e *flowEntry) {
	f.indexNames(e)
	if e.Destination.Address.IsValid() {
		f.byAddress.put(e)
	}
	if e.Policy != "" {
		f.byPolicy.put(e)
	}
}

// names are those by which an event is found.
func (e *flowEntry) names() []domain.Name {
	if e.Question.IsZero() {
		return e.Domains
	}
	return append(e.Domains[:len(e.Domains):len(e.Domains)], e.Question)
}

func (f *Flows) indexNames(e *flowEntry) {
	for _, name := range e.names() {
		f.byName.put(flowName{name, e})
	}
}

func (f *Flows) unindexNames(e *flowEntry) {
	for _, name := range e.names() {
		f.byName.remove(flowName{name, e})
	}
}

func (f *Flows) remove(e *flowEntry) {
	f.byPosition.remove(e)
	f.unindexNames(e)
	f.byAddress.remove(e)
	f.byPolicy.remove(e)
	heap.Remove(&f.oldest, e.place)
	if f.ofNode[e.Node]--; f.ofNode[e.Node] == 0 {
		delete(f.ofNode, e.Node)
	}
}

// own returns every event of a node.
func (f *Flows) own(id node.ID) (own []*flowEntry) {
	for e := range f.byPosition.from(flowAt(flow.Position{Node: id})) {
		if e.Node != id {
			break
		}
		own = append(own, e)
	}
	return own
}

// evictOwn makes room for a node that has all that it may: those of its own events that were not seen for longest go,
// many at once.
func (f *Flows) evictOwn(id node.ID) {
	own := f.own(id)
	slices.SortFunc(own, func(a, b *flowEntry) int { return a.seen.Compare(b.seen) })
	for _, e := range own[:len(own)/evictPart+1] {
		f.stats.Evicted++
		f.remove(e)
	}
}

// Forget forgets every flow event of a node.
func (f *Flows) Forget(id node.ID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.own(id) {
		f.remove(e)
	}
}

// Stats returns the counts.
func (f *Flows) Stats() FlowStats {
	f.mu.RLock()
	defer f.mu.RUnlock()
	stats := f.stats
	stats.Events, stats.Watches = len(f.oldest), len(f.watches)
	return stats
}

// Run forgets flow events that were not seen for FlowAge, until ctx ends.
func (f *Flows) Run(ctx context.Context) error {
	ticker := time.NewTicker(flowSweep)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-ticker.C:
			for f.expire(now) {
			}
		}
	}
}

// expire forgets some of what is too old, and reports whether there may be more.
func (f *Flows) expire(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for range expireAtOnce {
		if len(f.oldest) == 0 || now.Sub(f.oldest[0].seen) < FlowAge {
			return false
		}
		f.stats.Expired++
		f.remove(f.oldest[0])
	}
	return true
}

// flowAges is a heap: the entry that was not seen for longest is at its root.
type flowAges []*flowEntry

// Len is of heap.Interface, as are the others.
func (a flowAges) Len() int { return len(a) }

// Less orders by when the entry was last seen.
func (a flowAges) Less(i, j int) bool { return a[i].seen.Before(a[j].seen) }

// Swap keeps the places true.
func (a flowAges) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].place, a[j].place = i, j
}

// Push appends a *flowEntry.
func (a *flowAges) Push(x any) {
	added := x.(*flowEntry) //nolint:forcetypeassert // only entries are pushed
	added.place = len(*a)
	*a = append(*a, added)
}

// Pop removes the last.
func (a *flowAges) Pop() any {
	last := (*a)[len(*a)-1]
	(*a)[len(*a)-1] = nil
	*a = (*a)[:len(*a)-1]
	return last
}

var _ heap.Interface = (*flowAges)(nil)
