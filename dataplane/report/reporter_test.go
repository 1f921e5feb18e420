package report_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/dataplane/observe"
	"github.com/nameward/nameward/dataplane/report"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// health is a node's health that the test sets.
type health struct {
	mu       sync.Mutex // guards all below
	degraded []string
	changed  chan struct{}
}

func (h *health) Counters() (map[string]uint64, error) {
	return map[string]uint64{"verdicts_deny": 7}, nil
}

func (h *health) Degraded() ([]string, <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.degraded, h.changed
}

func (h *health) Addresses(report *agentv1.StatusReport) error {
	report.Addresses = []string{"192.0.2.1"}
	return nil
}

func (h *health) set(degraded ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	changed := h.changed
	h.degraded, h.changed = degraded, make(chan struct{})
	close(changed)
}

// stream is what the server got, inside a synctest bubble.
type stream struct {
	acknowledged chan uint64

	mu       sync.Mutex // guards all below
	batches  []*agentv1.Observations
	statuses []*agentv1.StatusReport
}

func (st *stream) send(request *agentv1.SyncRequest) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if request.GetStatus() != nil {
		st.statuses = append(st.statuses, request.GetStatus())
		return nil
	}
	st.batches = append(st.batches, request.GetObservations())
	return nil
}

// got returns what came up to now.
func (st *stream) got() ([]*agentv1.Observations, []*agentv1.StatusReport) {
	synctest.Wait()
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.batches, st.statuses
}

func start(t *testing.T, table *observe.Table, h *health) *stream {
	t.Helper()
	return startWith(t, table, observe.NewFlows(0), h)
}

func startWith(t *testing.T, table *observe.Table, flows *observe.Flows, h *health) *stream {
	t.Helper()
	id, err := node.ParseID("lab")
	if err != nil {
		t.Fatal(err)
	}
	st := &stream{acknowledged: make(chan uint64)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- report.New(id, table, flows, h, slog.New(slog.DiscardHandler)).Report(ctx, st.send, st.acknowledged)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Report: %v", err)
		}
	})
	return st
}

// record has so many names learned, each with one address, for a minute.
func record(t *testing.T, table *observe.Table, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		name, err := domain.ParseName(fmt.Sprintf("n%05d.example", i))
		if err != nil {
			t.Fatal(err)
		}
		table.Record(observe.Answer{
			Names:     []domain.Name{name},
			Addresses: []observe.Address{{Address: netip.MustParseAddr("192.0.2.1"), Names: 1}},
			LearnedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
		})
	}
}

// shape is what matters of a batch.
type shape struct {
	Batch      uint64
	Mappings   int
	Begin, End bool
}

func (st *stream) shapes() []shape {
	batches, _ := st.got()
	var shapes []shape
	for _, b := range batches {
		shapes = append(shapes, shape{b.GetBatch(), len(b.GetMappings()), b.GetSnapshotBegin(), b.GetSnapshotEnd()})
	}
	return shapes
}

func (st *stream) want(t *testing.T, want ...shape) {
	t.Helper()
	if diff := cmp.Diff(want, st.shapes()); diff != "" {
		t.Errorf("batches (-want +got): %s", diff)
	}
}

func TestSnapshotThenChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := observe.NewTable(0, 0)
		record(t, table, 0, 1200)
		st := start(t, table, &health{changed: make(chan struct{})})
		snapshot := []shape{{1, 500, true, false}, {2, 500, false, false}, {3, 200, false, true}}
		st.want(t, snapshot...)
		record(t, table, 1200, 1203)
		time.Sleep(time.Second)
		st.want(t, append(snapshot, shape{4, 3, false, false})...)
		batches, _ := st.got()
		m := batches[3].GetMappings()[0]
		if m.GetDomain() != "n01200.example" || m.GetAddress() != "192.0.2.1" || m.GetNode() != "nodes/lab" {
			t.Errorf("mapping %v, want n01200.example on nodes/lab", m)
		}
	})
}

func TestEmptySnapshotIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := observe.NewTable(0, 0)
		record(t, table, 0, 2)
		time.Sleep(2 * time.Minute) // expired, but not collected
		start(t, table, &health{changed: make(chan struct{})}).want(t, shape{1, 0, true, true})
	})
}

func TestSlowServerBoundsWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table := observe.NewTable(0, 0)
		record(t, table, 0, 3000)
		st := start(t, table, &health{changed: make(chan struct{})})
		if got := len(st.shapes()); got != 4 {
			t.Errorf("%d batches without an acknowledgement, want 4", got)
		}
		// What changes meanwhile takes its place at the end, once.
		record(t, table, 2990, 3000)
		record(t, table, 2990, 3000)
		st.acknowledged <- 2
		if got := len(st.shapes()); got != 6 {
			t.Errorf("%d batches after batch 2 was acknowledged, want 6", got)
		}
		st.acknowledged <- 6
		total := 0
		for _, s := range st.shapes() {
			total += s.Mappings
		}
		batches, _ := st.got()
		if last := batches[len(batches)-1]; total != 3000 || !last.GetSnapshotEnd() {
			t.Errorf("%d mappings, last batch %d; want 3000 and the end of the snapshot", total, last.GetBatch())
		}
	})
}

// A server that takes in nothing, though its connection lives, is left; what is known waits in the table.
func TestServerThatAcknowledgesNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		id, err := node.ParseID("lab")
		if err != nil {
			t.Fatal(err)
		}
		table, began := observe.NewTable(0, 0), time.Now()
		record(t, table, 0, 3000)
		st, h := &stream{acknowledged: make(chan uint64)}, &health{changed: make(chan struct{})}
		err = report.New(id, table, observe.NewFlows(0), h, slog.New(slog.DiscardHandler)).Report(t.Context(), st.send, st.acknowledged)
		if took := time.Since(began); err == nil || took != time.Minute {
			t.Errorf("Report ended after %v with %v, want an error after a minute", took, err)
		}
		if batches := st.shapes(); len(batches) != 4 {
			t.Errorf("%d batches are under way, want 4", len(batches))
		}
	})
}

// flowKey is a key of its own for each port.
func flowKey(port int) flow.Key {
	return flow.Key{Reason: flow.NoRule, Destination: flow.Destination{Address: netip.MustParseAddr("192.0.2.1"), Port: uint16(port), Protocol: 6}}
}

// flows returns, batch by batch, the flow events that the server got, as `port×count`.
func (st *stream) flows() []string {
	batches, _ := st.got()
	var got []string
	for _, b := range batches {
		var texts []string
		for _, e := range b.GetFlowEvents() {
			texts = append(texts, fmt.Sprintf("%d×%d", e.GetDestination().GetPort(), e.GetCount()))
		}
		if len(texts) > 0 {
			got = append(got, strings.Join(texts, " "))
		}
	}
	return got
}

func (st *stream) wantFlows(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, st.flows()); diff != "" {
		t.Errorf("flow events (-want +got): %s", diff)
	}
}

func TestFlowEventsAreToldAtOnceThenEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, flows := observe.NewTable(0, 0), observe.NewFlows(0)
		flows.Record(flowKey(1), time.Now())
		st := startWith(t, table, flows, &health{changed: make(chan struct{})})
		st.wantFlows(t, "1×1")
		st.want(t, shape{1, 0, true, true}) // no part of the snapshot, but in its batch
		for range 50 {
			flows.Record(flowKey(1), time.Now())
			time.Sleep(10 * time.Millisecond)
		}
		flows.Record(flowKey(2), time.Now())
		st.wantFlows(t, "1×1")
		record(t, table, 0, 1) // mappings do not wait
		time.Sleep(200 * time.Millisecond)
		st.want(t, shape{1, 0, true, true}, shape{2, 1, false, false})
		time.Sleep(time.Second)
		st.wantFlows(t, "1×1", "1×51 2×1")
		time.Sleep(time.Hour)
		st.wantFlows(t, "1×1", "1×51 2×1")
		flows.Record(flowKey(2), time.Now())
		time.Sleep(200 * time.Millisecond)
		st.wantFlows(t, "1×1", "1×51 2×1", "2×2")
	})
}

func TestManyFlowEventsGoInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flows := observe.NewFlows(0)
		for port := range 1203 {
			flows.Record(flowKey(port), time.Now())
		}
		st := startWith(t, observe.NewTable(0, 0), flows, &health{changed: make(chan struct{})})
		batches, _ := st.got()
		if len(batches) != 3 || len(batches[0].GetFlowEvents()) != 500 || len(batches[2].GetFlowEvents()) != 203 {
			t.Errorf("%d batches, want 500, 500 and 203 flow events", len(batches))
		}
		// Without an acknowledgement, the window bounds them too.
		for i := range 10 {
			flows.Record(flowKey(i), time.Now())
			time.Sleep(2 * time.Second)
		}
		if batches, _ = st.got(); len(batches) != 4 {
			t.Errorf("%d batches without an acknowledgement, want 4", len(batches))
		}
		st.acknowledged <- 4
		time.Sleep(2 * time.Second)
		if got := st.flows(); len(got) != 5 || len(strings.Fields(got[4])) != 9 {
			t.Errorf("after the acknowledgement: %d batches, the last %q, want the other 9 in one", len(got), got[len(got)-1])
		}
	})
}

// A new stream is told the same state, from which a server that knew it learns nothing new.
func TestANewStreamTellsFlowEventsAsTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		flows := observe.NewFlows(0)
		flows.Record(flowKey(1), time.Now())
		flows.Record(flowKey(1), time.Now())
		var told []*namewardv1.FlowEvent
		for range 2 {
			st := startWith(t, observe.NewTable(0, 0), flows, &health{changed: make(chan struct{})})
			st.wantFlows(t, "1×2")
			batches, _ := st.got()
			told = append(told, batches[0].GetFlowEvents()[0])
		}
		if diff := cmp.Diff(told[0], told[1], protocmp.Transform()); diff != "" {
			t.Errorf("told a second time (-first +second): %s", diff)
		}
	})
}

func TestStatusEveryTenSecondsAndAtOnceWhenHealthChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &health{changed: make(chan struct{})}
		st := start(t, observe.NewTable(0, 0), h)
		want := func(count int, degraded int) {
			t.Helper()
			_, statuses := st.got()
			if len(statuses) != count {
				t.Fatalf("%d statuses, want %d", len(statuses), count)
			}
			last := statuses[count-1]
			if last.GetCounters()["verdicts_deny"] != 7 || len(last.GetDegraded()) != degraded {
				t.Errorf("last status %v, want counters and %d faults", last, degraded)
			}
		}
		want(1, 0)
		time.Sleep(25 * time.Second)
		want(3, 0)
		h.set("disk full")
		want(4, 1)
		h.set("disk full") // no news
		want(4, 1)
	})
}

func TestReportEndsWithTheStream(t *testing.T) {
	broken := errors.New("broken")
	err := report.New(node.ID{}, observe.NewTable(0, 0), observe.NewFlows(0), &health{changed: make(chan struct{})}, slog.New(slog.DiscardHandler)).
		Report(t.Context(), func(*agentv1.SyncRequest) error { return broken }, nil)
	if !errors.Is(err, broken) {
		t.Errorf("Report: got %v, want %v", err, broken)
	}
}
