package syncserver

import (
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// What is read by hand is what protobuf reads, and what is not is kept as it came.
func TestAcknowledgementsAreReadAsProtobufReadsThem(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		message := draw(t)
		wire, err := proto.Marshal(message)
		if err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "spoilt") && len(wire) > 0 {
			wire[rapid.IntRange(0, len(wire)-1).Draw(t, "at")] ^= rapid.Byte().Draw(t, "by")
		}
		var in incoming
		in.read(mem.BufferSlice{mem.SliceBuffer(wire)})
		if in.raw != nil || len(wire) == 0 {
			if string(in.raw) != string(wire) {
				t.Fatalf("kept %x of %x", in.raw, wire)
			}
			return
		}
		var want agentv1.SyncRequest
		if err := proto.Unmarshal(wire, &want); err != nil {
			t.Fatalf("read %x, which protobuf does not: %v", wire, err)
		}
		if want.GetAck() == nil || want.GetAck().GetRevision() != in.revision || string(want.GetAck().GetRuleSetId()) != string(in.id[:]) {
			t.Fatalf("read revision %d, %s of %v", in.revision, in.id, &want)
		}
	})
}

func draw(t *rapid.T) *agentv1.SyncRequest {
	id := rapid.SliceOfN(rapid.Byte(), len(ruleset.ID{}), len(ruleset.ID{}))
	switch rapid.SampledFrom([]string{"ack", "ack", "short", "nack", "status", "none"}).Draw(t, "kind") {
	case "ack":
		return &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Ack{Ack: &agentv1.Ack{Revision: rapid.Uint64().Draw(t, "revision"), RuleSetId: id.Draw(t, "id")}}}
	case "short":
		return &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Ack{Ack: &agentv1.Ack{Revision: 1, RuleSetId: []byte("short")}}}
	case "nack":
		return &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Nack{Nack: &agentv1.Nack{Revision: 1, Error: "full"}}}
	case "status":
		return &agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: &agentv1.StatusReport{Counters: map[string]uint64{"x": 1}}}}
	}
	return &agentv1.SyncRequest{}
}
