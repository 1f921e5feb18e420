package store_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/store"
)

func register(t testing.TB, s *store.Store, name, kernel string) node.ID {
	t.Helper()
	id, err := node.ParseID(name)
	if err != nil {
		t.Fatal(err)
	}
	n := store.Node{ID: id, Labels: map[string]string{"role": "web"}, AgentVersion: "1", Kernel: kernel, IptablesBackend: "nft"}
	if err := s.RegisterNode(t.Context(), n); err != nil {
		t.Fatalf("RegisterNode: %v", err)
	}
	return id
}

func TestRegistrationKeepsTheStatus(t *testing.T) {
	s := fresh(t)
	id := register(t, s, "lab", "6.1")
	if err := s.UpdateNodeStatus(id, func(status *store.NodeStatus) { status.AppliedRevision = 7 }); err != nil {
		t.Fatal(err)
	}
	register(t, s, "lab", "6.18")
	n, err := s.Node(id)
	if err != nil || n.Kernel != "6.18" || n.Status.AppliedRevision != 7 {
		t.Errorf("Node = %+v, %v, want kernel 6.18 and applied revision 7", n, err)
	}
}

func TestEqualRegistrationWritesNothing(t *testing.T) {
	s := fresh(t)
	register(t, s, "lab", "6.1")
	before := s.Revision()
	register(t, s, "lab", "6.1")
	if after := s.Revision(); after != before {
		t.Errorf("revision went from %d to %d", before, after)
	}
}

func TestNodeStatus(t *testing.T) {
	s := fresh(t)
	id := register(t, s, "lab", "6.1")
	_, changed := s.Nodes()
	_, _, policiesChanged := s.Snapshot()
	before, revision := time.Unix(1000, 0), s.Revision()
	held, err := s.Node(id)
	if err != nil {
		t.Fatal(err)
	}
	err = s.UpdateNodeStatus(id, func(status *store.NodeStatus) {
		status.Connected, status.LastContact, status.LastError = true, before, "map is full"
		status.Counters = map[string]uint64{"verdicts_deny": 3}
	})
	if err != nil {
		t.Fatal(err)
	}
	<-changed
	select {
	case <-policiesChanged:
		t.Error("a node's status woke who waits for policies")
	default:
	}
	if held.Status.Connected {
		t.Error("a node that was handed out changed")
	}
	if s.Revision() != revision {
		t.Error("a status moved the revision")
	}
	nodes, _ := s.Nodes()
	want := &namewardv1.Node{
		Name: "nodes/lab", Labels: map[string]string{"role": "web"},
		Status: &namewardv1.NodeStatus{
			AgentVersion: "1", Kernel: "6.1", IptablesBackend: "nft", Connected: true,
			State: namewardv1.NodeStatus_FAILED, LastContactTime: timestamppb.New(before), LastError: "map is full", Counters: map[string]uint64{"verdicts_deny": 3},
		},
	}
	if diff := cmp.Diff(want, nodes[0].Message(), protocmp.Transform()); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
}

func TestUnknownNode(t *testing.T) {
	s := fresh(t)
	id, err := node.ParseID("none")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Node(id); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Node = %v, want ErrNotFound", err)
	}
	if err := s.UpdateNodeStatus(id, func(*store.NodeStatus) {}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("UpdateNodeStatus = %v, want ErrNotFound", err)
	}
}

func TestListNodes(t *testing.T) {
	s := fresh(t)
	for _, name := range []string{"c", "a", "b"} {
		register(t, s, name, "6.1")
	}
	first, more, err := s.ListNodes("", 2, nil)
	if err != nil || !more || len(first) != 2 || first[1].ID.String() != "b" {
		t.Fatalf("first page = %v, more %t, %v, want a, b and more", first, more, err)
	}
	second, more, err := s.ListNodes("b", 2, nil)
	if err != nil || more || len(second) != 1 || second[0].ID.String() != "c" {
		t.Errorf("second page = %v, more %t, %v, want c alone", second, more, err)
	}
}
