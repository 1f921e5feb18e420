package syncserver

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/nameward/nameward/api/ruleset"
)

// incoming is what an agent says behind its hello. Nearly all of it is acknowledgements: they are read at once. The rest
// is kept as it came, for the crew: to decode it takes a stack which the goroutine of the stream would keep.
type incoming struct {
	// revision and id are those of an acknowledgement, where raw is nil.
	revision uint64
	id       ruleset.ID
	raw      []byte
}

// Numbers of the fields, as in sync_service.proto.
const (
	fieldAck          = 2
	fieldAckRevision  = 1
	fieldAckRuleSetID = 2
)

// read takes a message in.
func (in *incoming) read(data mem.BufferSlice) {
	*in = incoming{}
	if len(data) != 1 || !in.readAck(data[0].ReadOnlyData()) {
		in.raw = data.Materialize()
	}
}

// readAck reports whether a message is an acknowledgement in the form that agents send.
func (in *incoming) readAck(message []byte) bool {
	number, kind, n := protowire.ConsumeTag(message)
	if n < 0 || number != fieldAck || kind != protowire.BytesType {
		return false
	}
	ack, size := protowire.ConsumeBytes(message[n:])
	if size < 0 || n+size != len(message) {
		return false
	}
	identified := false
	for len(ack) > 0 {
		number, kind, n := protowire.ConsumeTag(ack)
		if n < 0 {
			return false
		}
		ack = ack[n:]
		switch {
		case number == fieldAckRevision && kind == protowire.VarintType:
			if in.revision, n = protowire.ConsumeVarint(ack); n < 0 {
				return false
			}
		case number == fieldAckRuleSetID && kind == protowire.BytesType:
			var id []byte
			if id, n = protowire.ConsumeBytes(ack); n < 0 || len(id) != len(in.id) {
				return false
			}
			in.id, identified = ruleset.ID(id), true
		default:
			return false
		}
		ack = ack[n:]
	}
	return identified
}
