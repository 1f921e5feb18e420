package observe

import (
	"container/list"
	"slices"
	"sync"
	"time"

	"github.com/nameward/nameward/api/flow"
)

const (
	// FlowCapacity is how many flow events a node holds.
	FlowCapacity = 16_384
	// FlowAge is for how long a node holds a flow event after it was last seen.
	FlowAge = 24 * time.Hour
)

// Flows gathers connections that were denied or audited into flow events, one for each key, with the
// names under which their destinations were last seen. At the capacity the one that was not seen for
// longest goes. It is safe for concurrent use.
type Flows struct {
	capacity int

	mu      sync.Mutex // guards all below
	events  map[flow.Key]*list.Element
	recent  *list.List // of *flowEntry, the one that was seen last at the back
	last    Cursor     // of the newest change
	changed chan struct{}
	evicted uint64
	names   lastNames
}

// flowEntry is a flow event with its place in the order of changes, which is that of recent.
type flowEntry struct {
	event  flow.Event
	change Cursor
}

// NewFlows returns an empty store; a capacity of 0 means the default.
func NewFlows(capacity int) *Flows {
	if capacity == 0 {
		capacity = FlowCapacity
	}
	return &Flows{
		capacity: capacity, events: map[flow.Key]*list.Element{}, recent: list.New(),
		changed: make(chan struct{}), names: newLastNames(namedAddresses),
	}
}

// Saw remembers under which name addresses were seen.
func (f *Flows) Saw(answer Answer) {
	if len(answer.Names) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range answer.Addresses {
		f.names.put(a.Address.Unmap(), answer.Names[0])
	}
}

// Restore takes in mappings that were known before, in order of their last sight.
func (f *Flows) Restore(mappings []Mapping) {
	seen := slices.SortedFunc(slices.Values(mappings), func(a, b Mapping) int { return a.LastSeen.Compare(b.LastSeen) })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, m := range seen {
		f.names.put(m.Address, m.Domain)
	}
}

// Record counts a connection.
func (f *Flows) Record(key flow.Key, seen time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expire(seen)
	element := f.events[key]
	if element == nil {
		if len(f.events) >= f.capacity {
			f.remove(f.recent.Front())
			f.evicted++
		}
		element = f.recent.PushBack(&flowEntry{event: flow.Event{Key: key, FirstSeen: seen, LastSeen: seen}})
		f.events[key] = element
	}
	f.last++
	entry := entryOf(element)
	entry.change = f.last
	entry.event.Count++
	entry.event.LastSeen = later(entry.event.LastSeen, seen)
	entry.event.Domains = f.names.of(key.Destination.Address)
	f.recent.MoveToBack(element)
	close(f.changed)
	f.changed = make(chan struct{})
}

// expire forgets what was not seen for too long.
func (f *Flows) expire(now time.Time) {
	for front := f.recent.Front(); front != nil && now.Sub(entryOf(front).event.LastSeen) > FlowAge; front = f.recent.Front() {
		f.remove(front)
	}
}

func (f *Flows) remove(element *list.Element) {
	delete(f.events, entryOf(element).event.Key)
	f.recent.Remove(element)
}

func entryOf(element *list.Element) *flowEntry { return element.Value.(*flowEntry) } //nolint:forcetypeassert // only entries are in the list

// Changes returns, in order of their last change, the flow events that changed after a cursor, at most
// limit of them (0: all), the cursor to go on from, and a channel that is closed at the next change
// after this call. A flow event that changed often comes once, as it is now, and one that is gone does
// not come. With fewer than limit results the reader is up to date.
func (f *Flows) Changes(after Cursor, limit int) (changed []flow.Event, next Cursor, more <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := f.recent.Back()
	for first != nil && first.Prev() != nil && entryOf(first.Prev()).change > after {
		first = first.Prev()
	}
	for ; first != nil && (limit == 0 || len(changed) < limit); first = first.Next() {
		if entry := entryOf(first); entry.change > after {
			changed, after = append(changed, entry.event), entry.change
		}
	}
	return changed, after, f.changed
}

// List returns the flow events that were seen within FlowAge and that keep accepts, sorted by key.
func (f *Flows) List(now time.Time, keep func(*flow.Event) bool) []flow.Event {
	f.mu.Lock()
	f.expire(now)
	var found []flow.Event
	for element := f.recent.Front(); element != nil; element = element.Next() {
		if e := &entryOf(element).event; keep(e) {
			found = append(found, *e)
		}
	}
	f.mu.Unlock()
	slices.SortFunc(found, func(a, b flow.Event) int { return a.Compare(&b.Key) })
	return found
}

// Evicted returns how many flow events had to give way to newer ones.
func (f *Flows) Evicted() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.evicted
}
