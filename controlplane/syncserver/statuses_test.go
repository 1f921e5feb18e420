package syncserver

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

func openStatuses(t *testing.T, nodes int) (*statuses, []*gathered, *[]node.ID) {
	t.Helper()
	s := OpenStore(t)
	var forgotten []node.ID
	all := newStatuses(s, func(id node.ID) { forgotten = append(forgotten, id) })
	var of []*gathered
	for i := range nodes {
		id, err := node.ParseID(fmt.Sprintf("n%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RegisterNode(t.Context(), store.Node{ID: id}); err != nil {
			t.Fatal(err)
		}
		of = append(of, all.of(id))
	}
	return all, of, &forgotten
}

// Each change of a node is made once and in order, whoever writes meanwhile, and however often there is nothing to write.
func TestChangesOfAStatusAreMadeOnceAndInOrder(t *testing.T) {
	const nodes, changes = 4, 300
	all, of, forgotten := openStatuses(t, nodes)
	made := make([][]int, nodes) // under statuses.writing
	var changing, writing sync.WaitGroup
	done := make(chan struct{})
	writing.Go(func() {
		for {
			if err := all.write(); err != nil {
				t.Error(err)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
	for i, n := range of {
		changing.Go(func() {
			for change := range changes {
				record := func(*store.NodeStatus) { made[i] = append(made[i], change) }
				if change%50 != 0 {
					all.change(n, record)
				} else if err := all.changeNow(n, record); err != nil {
					t.Error(err)
				}
			}
		})
	}
	changing.Wait()
	close(done)
	writing.Wait()
	for range 3 {
		if err := all.write(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range made {
		if len(made[i]) != changes || !slices.IsSorted(made[i]) {
			t.Errorf("node %d: %d changes, in order is %v", i, len(made[i]), slices.IsSorted(made[i]))
		}
	}
	if len(*forgotten) > 0 {
		t.Errorf("forgotten: %v", *forgotten)
	}
}

// A place that was looked up is not taken for that of a node that was deleted, nor of one that came back.
func TestStatusOfANodeThatIsForgotten(t *testing.T) {
	all, of, forgotten := openStatuses(t, 2)
	applied := func(revision uint64) func(*store.NodeStatus) {
		return func(status *store.NodeStatus) { status.AppliedRevision = revision }
	}
	change := func(revision uint64) {
		t.Helper()
		for _, n := range of {
			all.change(n, applied(revision))
		}
		if err := all.write(); err != nil {
			t.Fatal(err)
		}
	}
	change(1)
	id := of[0].id
	if err := all.store.DeleteNode(t.Context(), id, func() {}); err != nil {
		t.Fatal(err)
	}
	change(2)
	if !slices.Equal(*forgotten, []node.ID{id}) {
		t.Errorf("forgotten: %v", *forgotten)
	}
	if err := all.store.RegisterNode(t.Context(), store.Node{ID: id}); err != nil {
		t.Fatal(err)
	}
	change(3)
	for _, n := range of {
		if known, err := all.store.Node(n.id); err != nil || known.Status.AppliedRevision != 3 {
			t.Errorf("%s: %v, %v", n.id, known, err)
		}
	}
}
