package subscribe

import (
	"testing"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
)

func policies(names ...string) *ruleset.RuleSet {
	var list []ruleset.Policy
	for _, name := range names {
		list = append(list, ruleset.Policy{Name: "policies/" + name, Workloads: []ruleset.Workload{{Host: true}}})
	}
	return ruleset.New(list)
}

func step(from, to *ruleset.RuleSet, revision uint64) *agentv1.SyncResponse {
	id := to.ID()
	return &agentv1.SyncResponse{StoreId: "s", Revision: revision, RuleSetId: id[:], Changes: from.Changes(to), Complete: true}
}

// The server may send what a slow stream missed as one message: the encodings, one behind the other.
func TestConcatenatedResponsesAreTheirSum(t *testing.T) {
	first := step(policies(), policies("a", "b"), 1)
	first.Reset_ = true
	from := func(base uint64, response *agentv1.SyncResponse) *agentv1.SyncResponse {
		response.BaseRevisions = []uint64{base}
		return response
	}
	responses := []*agentv1.SyncResponse{
		first,
		from(1, step(policies("a", "b"), policies("b", "c"), 2)),
		from(2, step(policies("b", "c"), policies("a", "c"), 3)),
	}
	for split := range responses {
		r := newReplica(nil)
		var reached uint64
		for _, group := range [][]*agentv1.SyncResponse{responses[:split], responses[split:]} {
			var encoded []byte
			for _, response := range group {
				b, err := proto.Marshal(response)
				if err != nil {
					t.Fatal(err)
				}
				encoded = append(encoded, b...)
			}
			if len(encoded) == 0 {
				continue
			}
			var merged agentv1.SyncResponse
			if err := proto.Unmarshal(encoded, &merged); err != nil {
				t.Fatal(err)
			}
			revision, err := r.take(&merged)
			if err != nil {
				t.Fatalf("split at %d: %v", split, err)
			}
			reached = revision.Number
		}
		if reached != 3 || r.base.ID() != policies("a", "c").ID() {
			t.Errorf("split at %d: revision %d with %v, want 3 with a and c", split, reached, r.base)
		}
	}
}

func TestBackoffIsBoundedAndJittered(t *testing.T) {
	most := func(n int64) int64 { return n - 1 }
	for failures, want := range map[int]int64{0: 100, 1: 200, 5: 3200, 7: 10000, 1000: 10000} {
		if got := backoff(failures, most); got.Milliseconds() != want-1 {
			t.Errorf("after %d failures: at most %v, want just below %d ms", failures, got, want)
		}
	}
	if got := backoff(3, func(int64) int64 { return 0 }); got != 0 {
		t.Errorf("at least %v, want 0", got)
	}
}
