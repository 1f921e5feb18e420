package syncserver

import (
	"fmt"
	"slices"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/publish"
)

// What a writer is doing.
const (
	resting int32 = iota
	waiting       // for the crew
	looking
	lookingAgain // looking, and to look again then
)

// writer sends on one stream, by the hands of the crew of all streams. It keeps no queue: what it sends next is computed
// from what it sent last.
type writer struct {
	session      *session
	subscription *publish.Subscription
	doing        atomic.Int32
	job          func()      // look and rest, as a job of the crew
	asked        atomic.Bool // to leave, for whatever reason

	// All below is of whoever looks.

	// sent is the last event sent, acknowledged the last batch number. reached is the revision that the agent has when it
	// has taken that in, or that of its hello.
	sent                  *publish.Event
	acknowledged, reached uint64
	// packed says that the agent reads packed changes.
	packed bool
	// lost says that the agent's copy is wrong: nothing but a whole rule set is of use to it. resynced is
	// the content that was last sent so. It is not sent so twice in a row: an agent that cannot agree with
	// it would ask for ever.
	lost     bool
	resynced ruleset.ID
	// draining and leaving are nil when the agent has been asked to leave because the server stops, or that it goes to
	// another.
	draining, leaving <-chan struct{}
}

// newWriter makes a writer that looks already: nothing is sent before begin.
func newWriter(s *session) *writer {
	w := &writer{session: s, draining: s.server.draining, leaving: s.server.leaving.channel()}
	w.doing.Store(looking)
	w.job = func() {
		w.doing.Store(looking)
		w.end(w.look())
	}
	return w
}

// wake has the writer look whether there is something to send, soon. It may be called at any time.
func (w *writer) wake() {
	for {
		switch doing := w.doing.Load(); doing {
		case resting:
			if w.doing.CompareAndSwap(doing, waiting) {
				w.session.server.writers.do(w.job)
				return
			}
		case looking:
			if w.doing.CompareAndSwap(doing, lookingAgain) {
				return
			}
		default:
			return
		}
	}
}

// start begins the stream, and then looks when it is woken.
func (w *writer) start(hello *agentv1.Hello, begun func()) {
	w.packed = slices.Contains(hello.GetCapabilities(), agentv1.Hello_PACKED_CHANGES)
	newest, _ := w.subscription.Newest()
	err := w.begin(hello, newest)
	if err == nil {
		begun()
		w.subscription.Delivered(newest)
		err = w.look()
	}
	w.end(err)
}

// end has the writer rest, unless it was woken meanwhile. An error ends the stream.
func (w *writer) end(err error) {
	if err != nil {
		w.session.cancel(err) // and the writer looks for ever
		return
	}
	if !w.doing.CompareAndSwap(looking, resting) {
		w.doing.Store(waiting)
		w.session.server.writers.do(w.job)
	}
}

// look sends what there is to send.
func (w *writer) look() error {
	if err := w.askToLeave(); err != nil {
		return err
	}
	newest, _ := w.subscription.Newest()
	if err := w.catchUp(newest); err != nil {
		return err
	}
	w.subscription.Delivered(newest)
	return nil
}

// askToLeave sends a hint, once for each reason.
func (w *writer) askToLeave() error {
	asked := false
	for _, reason := range []*<-chan struct{}{&w.draining, &w.leaving} {
		select {
		case <-*reason:
			*reason, asked = nil, true
		default:
		}
	}
	if !asked {
		return nil
	}
	return w.ask()
}

// begin answers hello: the agent goes on from what it holds, if that is known here, or begins anew.
func (w *writer) begin(hello *agentv1.Hello, newest *publish.Event) error {
	w.reached = hello.GetRevision()
	response := &agentv1.SyncResponse{StoreId: w.session.server.store.ID()}
	held, err := ruleset.ParseID(hello.GetRuleSetId())
	if err != nil || hello.GetStoreId() != response.GetStoreId() {
		return w.sendSnapshot(newest)
	}
	response.Resumed = true
	if held == newest.ID {
		w.session.server.metrics.resumed.Inc()
		return w.sendUpdate(response, newest, [][]byte{nil})
	}
	base, ok := w.session.server.publisher.Remembered(held)
	if !ok {
		return w.sendSnapshot(newest)
	}
	return w.sendChangesFrom(response, base, newest)
}

// catchUp sends what the agent lacks, if anything.
func (w *writer) catchUp(newest *publish.Event) error {
	s := w.session
	s.mu.Lock()
	refused, resync, taken := s.refused, s.resync, s.taken
	s.resync = false
	s.mu.Unlock()
	w.lost = w.lost || resync
	switch {
	case w.lost && newest.ID != w.resynced:
		w.lost, w.resynced = false, newest.ID
		return w.sendSnapshot(newest)
	case !w.lost && newest != w.sent && newest.ID != refused:
		w.resynced = ruleset.ID{}
		return w.sendChangesFrom(nil, w.sent.Content, newest)
	case taken > w.acknowledged:
		w.acknowledged = taken
		return w.send(&agentv1.SyncResponse{AcknowledgedBatch: taken})
	}
	return nil
}

func (w *writer) sendSnapshot(newest *publish.Event) error {
	encode := newest.Snapshot
	if w.packed {
		encode = newest.PackedSnapshot
	}
	messages, err := encode()
	if err != nil {
		return fmt.Errorf("encode rule set: %w", err)
	}
	w.session.server.metrics.snapshots.Inc()
	end, err := newest.End()
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	return w.sendParts(&agentv1.SyncResponse{StoreId: w.session.server.store.ID(), Reset_: true}, newest, messages, end)
}

// sendChangesFrom sends what makes the newest rule set of another, behind the fields of response; nil for none.
func (w *writer) sendChangesFrom(response *agentv1.SyncResponse, base *publish.Content, newest *publish.Event) error {
	encode := newest.ChangesFrom
	if w.packed {
		encode = newest.PackedChangesFrom
	}
	messages, err := encode(base)
	if err != nil {
		return fmt.Errorf("encode changes: %w", err)
	}
	w.session.server.metrics.changes.Inc()
	return w.sendUpdate(response, newest, messages)
}

// sendUpdate sends the changes from what the agent has.
func (w *writer) sendUpdate(response *agentv1.SyncResponse, newest *publish.Event, messages [][]byte) error {
	end, err := newest.EndFrom(w.reached)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	return w.sendParts(response, newest, messages, end)
}

// sendParts sends the messages: the first behind the fields of response, the last before those that
// complete the event. What all streams send alike is not encoded again.
func (w *writer) sendParts(response *agentv1.SyncResponse, newest *publish.Event, messages [][]byte, end []byte) error {
	w.sent, w.reached = newest, newest.Revision
	w.session.mu.Lock()
	// Before the agent can answer it.
	w.session.sent, w.session.refused = newest, ruleset.ID{}
	taken := w.session.taken
	w.session.mu.Unlock()
	var head []byte
	if taken > w.acknowledged {
		w.acknowledged = taken
		if response == nil {
			response = &agentv1.SyncResponse{}
		}
		response.AcknowledgedBatch = taken
	}
	if response != nil {
		var err error
		if head, err = proto.Marshal(response); err != nil {
			return fmt.Errorf("encode response: %w", err)
		}
	}
	for i, message := range messages {
		parts := encoded{head, message, nil}
		if i == len(messages)-1 {
			parts[2] = end
		}
		if err := w.session.stream.SendMsg(parts); err != nil {
			return err //nolint:wrapcheck // a status of gRPC
		}
		head = nil
	}
	return nil
}

func (w *writer) send(response *agentv1.SyncResponse) error {
	return w.session.stream.SendMsg(response) //nolint:wrapcheck // a status of gRPC
}
