package pack_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/pack"
)

func deletions(from, to int) (changes []*agentv1.RuleSetChange) {
	for i := from; i < to; i++ {
		changes = append(changes, &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_DeletePolicy{DeletePolicy: fmt.Sprintf("policies/p%d", i)}})
	}
	return changes
}

func encode(t interface{ Fatal(...any) }, changes []*agentv1.RuleSetChange) []byte {
	encoded, err := proto.Marshal(&agentv1.SyncResponse{Changes: changes})
	if err != nil {
		t.Fatal(err)
	}
	return encoded
}

// The wire rule of SyncService holds for packs too: what is encoded one behind the other, packed or not, are the changes
// of all in order.
func TestPacksKeepTheirPlaceAmongChanges(t *testing.T) {
	packer := pack.NewPacker()
	rapid.Check(t, func(t *rapid.T) {
		var wire []byte
		n := 0
		for range rapid.IntRange(0, 5).Draw(t, "messages") {
			next := n + rapid.IntRange(0, 50).Draw(t, "changes")
			part := encode(t, deletions(n, next))
			n = next
			if rapid.Bool().Draw(t, "packed") {
				part = packer.Pack(part)
			}
			wire = append(wire, part...)
		}
		var response agentv1.SyncResponse
		if err := proto.Unmarshal(wire, &response); err != nil {
			t.Fatal(err)
		}
		got, err := pack.Unpack(response.GetChanges())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(encode(t, got), encode(t, deletions(0, n))) {
			t.Errorf("got %v, want the first %d", got, n)
		}
	})
}

func TestWhatIsNoPackIsRefused(t *testing.T) {
	packer := pack.NewPacker()
	encoder, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	packed := func(b []byte) *agentv1.RuleSetChange {
		return &agentv1.RuleSetChange{Change: &agentv1.RuleSetChange_Packed{Packed: b}}
	}
	for fact, change := range map[string]*agentv1.RuleSetChange{
		"it is not compressed":             packed([]byte("no pack")),
		"it holds no response":             packed(encoder.EncodeAll([]byte("no response"), nil)),
		"it holds a pack":                  packed(encoder.EncodeAll(packer.Pack(encode(t, deletions(0, 1))), nil)),
		"it is longer than a reader takes": packed(encoder.EncodeAll(make([]byte, 129<<20), nil)),
	} {
		if got, err := pack.Unpack([]*agentv1.RuleSetChange{change}); err == nil {
			t.Errorf("%s: got %v", fact, got)
		}
	}
}
