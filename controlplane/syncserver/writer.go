package syncserver

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/publish"
)

// writer sends on one stream. It keeps no queue: what it sends next is computed from what it sent last.
type writer struct {
	session      *session
	subscription *publish.Subscription
	stream       grpc.ServerStream
	begun        func() // is called when the agent has its first rule set

	// sent is the last event sent, acknowledged the last batch number.
	sent         *publish.Event
	acknowledged uint64
	// packed says that the agent reads packed changes.
	packed bool
	// lost says that the agent's copy is wrong: nothing but a whole rule set is of use to it. resynced is
	// the content that was last sent so. It is not sent so twice in a row: an agent that cannot agree with
	// it would ask for ever.
	lost     bool
	resynced ruleset.ID
	// draining is nil when the agent has been asked to leave because the server stops; asked says that it has been, for
	// whatever reason.
	draining <-chan struct{}
	asked    bool
}

// run sends until ctx ends or the server stops.
func (w *writer) run(ctx context.Context, hello *agentv1.Hello) error {
	w.draining = w.session.server.draining
	leaving := w.session.server.leaving.channel()
	w.packed = slices.Contains(hello.GetCapabilities(), agentv1.Hello_PACKED_CHANGES)
	newest, changed := w.subscription.Newest()
	if err := w.begin(hello, newest); err != nil {
		return err
	}
	w.begun()
	for {
		w.subscription.Delivered(newest)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-w.session.server.stopped:
			return errStopping
		case <-w.draining:
			w.draining = nil
			if err := w.ask(); err != nil {
				return err
			}
		case <-leaving:
			leaving = nil
			if err := w.ask(); err != nil {
				return err
			}
		case <-changed:
		case <-w.session.wake:
		}
		newest, changed = w.subscription.Newest()
		if err := w.catchUp(newest); err != nil {
			return err
		}
	}
}

// begin answers hello: the agent goes on from what it holds, if that is known here, or begins anew.
func (w *writer) begin(hello *agentv1.Hello, newest *publish.Event) error {
	response := &agentv1.SyncResponse{StoreId: w.session.server.store.ID()}
	held, err := ruleset.ParseID(hello.GetRuleSetId())
	if err != nil || hello.GetStoreId() != response.GetStoreId() {
		return w.sendSnapshot(newest)
	}
	response.Resumed = true
	if held == newest.ID {
		w.session.server.metrics.resumed.Inc()
		return w.sendChanges(response, newest, [][]byte{nil})
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
	return w.sendChanges(&agentv1.SyncResponse{StoreId: w.session.server.store.ID(), Reset_: true}, newest, messages)
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
	return w.sendChanges(response, newest, messages)
}

// sendChanges sends the messages: the first behind the fields of response, the last before those that
// complete the event. What all streams send alike is not encoded again.
func (w *writer) sendChanges(response *agentv1.SyncResponse, newest *publish.Event, messages [][]byte) error {
	w.sent = newest
	w.session.mu.Lock()
	// Before the agent can answer it.
	w.session.sent, w.session.refused = newest, ruleset.ID{}
	taken := w.session.taken
	w.session.mu.Unlock()
	end, err := newest.End()
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	var head []byte
	if taken > w.acknowledged {
		w.acknowledged = taken
		if response == nil {
			response = &agentv1.SyncResponse{}
		}
		response.AcknowledgedBatch = taken
	}
	if response != nil {
		if head, err = proto.Marshal(response); err != nil {
			return fmt.Errorf("encode response: %w", err)
		}
	}
	for i, message := range messages {
		parts := encoded{head, message, nil}
		if i == len(messages)-1 {
			parts[2] = end
		}
		if err := w.stream.SendMsg(parts); err != nil {
			return err //nolint:wrapcheck // a status of gRPC
		}
		head = nil
	}
	return nil
}

func (w *writer) send(response *agentv1.SyncResponse) error {
	return w.stream.SendMsg(response) //nolint:wrapcheck // a status of gRPC
}
