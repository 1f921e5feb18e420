package report_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/nameward/nameward/api/domain"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
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
	id, err := node.ParseID("lab")
	if err != nil {
		t.Fatal(err)
	}
	st := &stream{acknowledged: make(chan uint64)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- report.New(id, table, h, slog.New(slog.DiscardHandler)).Report(ctx, st.send, st.acknowledged)
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
	err := report.New(node.ID{}, observe.NewTable(0, 0), &health{changed: make(chan struct{})}, slog.New(slog.DiscardHandler)).
		Report(t.Context(), func(*agentv1.SyncRequest) error { return broken }, nil)
	if !errors.Is(err, broken) {
		t.Errorf("Report: got %v, want %v", err, broken)
	}
}
