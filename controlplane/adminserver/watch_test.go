package adminserver_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// receive returns the next n responses as text, and the last token.
func receive(t *testing.T, stream namewardv1.PolicyService_WatchPoliciesClient, n int) (got []string, token string) {
	t.Helper()
	for range n {
		response, err := stream.Recv()
		if err != nil {
			t.Fatalf("Recv after %v: %v", got, err)
		}
		text := fmt.Sprint(response.GetChange(), " ", response.GetPolicy().GetName())
		if response.GetReset_() {
			text += " reset"
		}
		if response.GetSynced() {
			text += " synced"
		}
		got = append(got, text)
		token = response.GetResumeToken()
		if token == "" {
			t.Errorf("%s has no token", text)
		}
	}
	return got, token
}

func (s *server) watch(t *testing.T, token string) namewardv1.PolicyService_WatchPoliciesClient {
	t.Helper()
	ctx, _ := withCancel(t)
	stream, err := s.WatchPolicies(ctx, &namewardv1.WatchPoliciesRequest{ResumeToken: token})
	if err != nil {
		t.Fatalf("WatchPolicies: %v", err)
	}
	return stream
}

const syncedText = "CHANGE_UNSPECIFIED  synced"

func TestWatch(t *testing.T) {
	s := start(t)
	s.create(t, "a", "")
	s.create(t, "b", "")
	stream := s.watch(t, "")
	got, synced := receive(t, stream, 3)
	if diff := cmp.Diff([]string{"PUT policies/a", "PUT policies/b", syncedText}, got); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
	s.create(t, "c", "")
	if _, err := s.DeletePolicy(t.Context(), &namewardv1.DeletePolicyRequest{Name: "policies/a"}); err != nil {
		t.Fatal(err)
	}
	want := []string{"PUT policies/c", "DELETE policies/a"}
	got, _ = receive(t, stream, 2)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes (-want +got):\n%s", diff)
	}
	got, _ = receive(t, s.watch(t, synced), 2)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("changes after resuming (-want +got):\n%s", diff)
	}
}

func TestResumeWithinASnapshotBeginsAnew(t *testing.T) {
	s := start(t)
	s.create(t, "a", "")
	s.create(t, "b", "")
	_, token := receive(t, s.watch(t, ""), 1)
	got, _ := receive(t, s.watch(t, token), 3)
	if diff := cmp.Diff([]string{"PUT policies/a reset", "PUT policies/b", syncedText}, got); diff != "" {
		t.Errorf("responses (-want +got):\n%s", diff)
	}
}

func TestTokenOfAnotherStoreBeginsAnew(t *testing.T) {
	other := start(t)
	other.create(t, "x", "")
	_, token := receive(t, other.watch(t, ""), 2)
	s := start(t)
	s.create(t, "y", "") // at the very revision of the token
	got, _ := receive(t, s.watch(t, token), 2)
	if diff := cmp.Diff([]string{"PUT policies/y reset", syncedText}, got); diff != "" {
		t.Errorf("responses (-want +got):\n%s", diff)
	}
}

func TestWatchEndsWhenTheServerStops(t *testing.T) {
	s := start(t)
	stream := s.watch(t, "")
	receive(t, stream, 1)
	s.stop()
	_, err := stream.Recv()
	wantCode(t, err, codes.Unavailable, "STOPPING")
}

func TestWatchEndsWithItsClient(t *testing.T) {
	s := start(t)
	ctx, cancel := withCancel(t)
	stream, err := s.WatchPolicies(ctx, &namewardv1.WatchPoliciesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	receive(t, stream, 1)
	cancel()
	if _, err := stream.Recv(); status.Code(err) != codes.Canceled {
		t.Errorf("Recv = %v, want CANCELED", err)
	}
}
