package publish

import (
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// Event says that a rule set is wanted from a revision on.
type Event struct {
	*Content
	// Revision is that at which the rule set of these labels changed to this content.
	Revision uint64
	Time     time.Time

	// before is what was wanted before, and delta the changes from there, which nearly all streams are about to
	// send: they read it without a lock. No delta: nobody has made it yet.
	before         *Content
	beforeRevision uint64
	delta          [][]byte
	packedDelta    [][]byte
	// end completes the event where it is whole, endFrom where it is the changes from before.
	end, endFrom func() ([]byte, error)

	superseded chan struct{}
}

func newEvent(content *Content, revision uint64, now time.Time) *Event {
	e := &Event{Content: content, Revision: revision, Time: now, superseded: make(chan struct{})}
	e.end = sync.OnceValues(func() ([]byte, error) { return e.encodeEnd() })
	return e
}

// follows makes the changes from the content before. What fails here fails again, with a reader to hear of it, in
// ChangesFrom.
func (e *Event) follows(before *Event) {
	e.succeeds(before.Content)
	e.before, e.beforeRevision = before.Content, before.Revision
	e.delta, _ = e.Content.ChangesFrom(before.Content)
	e.packedDelta, _ = e.Content.PackedChangesFrom(before.Content)
	e.endFrom = sync.OnceValues(func() ([]byte, error) { return e.encodeEnd(e.beforeRevision) })
}

// ChangesFrom returns what makes the event's rule set of another, in the form of Snapshot.
func (e *Event) ChangesFrom(from *Content) ([][]byte, error) {
	if from == e.before && e.delta != nil {
		return e.delta, nil
	}
	return e.Content.ChangesFrom(from)
}

// PackedChangesFrom returns what ChangesFrom does, for agents that read packed changes.
func (e *Event) PackedChangesFrom(from *Content) ([][]byte, error) {
	if from == e.before && e.packedDelta != nil {
		return e.packedDelta, nil
	}
	return e.Content.PackedChangesFrom(from)
}

// End returns the encoded SyncResponse that completes the event behind the last message of the snapshot. The bytes are
// shared.
func (e *Event) End() ([]byte, error) { return e.end() }

// EndFrom returns what End does, behind the last of the changes from what an agent has at a revision.
func (e *Event) EndFrom(revision uint64) ([]byte, error) {
	if e.endFrom != nil && revision == e.beforeRevision {
		return e.endFrom()
	}
	return e.encodeEnd(revision)
}

func (e *Event) encodeEnd(base ...uint64) ([]byte, error) {
	return proto.Marshal(&agentv1.SyncResponse{Revision: e.Revision, RuleSetId: e.ID[:], Complete: true, BaseRevisions: base})
}
