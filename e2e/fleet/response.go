package fleet

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	protobuf "google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// response is what an agent has to know of a SyncResponse. The changes are not decoded, but counted and, where they
// are kept, there as they came: a thousand agents in one process would otherwise do nothing else.
type response struct {
	storeID         string
	revision, batch uint64
	id              string
	resumed, reset  bool
	complete        bool
	// bases are the revisions that the changes are from: the first counts.
	bases         []uint64
	drain         time.Duration
	again         time.Duration // when to come again, where the server says it
	drainServers  []string
	size, changes int
	keep          bool
	raw           []byte
}

// Numbers of the fields, as in sync_service.proto.
const (
	fieldStoreID = iota + 1
	fieldRevision
	fieldRuleSetID
	fieldResumed
	fieldReset
	fieldChanges
	fieldComplete
	fieldBatch
	fieldDrain
	fieldDrainServers
	fieldBaseRevisions
	fieldRetryAfter
)

func (r *response) read(data []byte) error {
	*r = response{keep: r.keep, size: len(data)}
	if r.keep {
		r.raw = append(r.raw, data...)
	}
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("%w: %w", errWire, protowire.ParseError(n))
		}
		data = data[n:]
		switch kind {
		case protowire.VarintType:
			value, n := protowire.ConsumeVarint(data)
			if n < 0 {
				return fmt.Errorf("%w: %w", errWire, protowire.ParseError(n))
			}
			r.number(number, value)
			data = data[n:]
		case protowire.BytesType:
			value, n := protowire.ConsumeBytes(data)
			if n < 0 {
				return fmt.Errorf("%w: %w", errWire, protowire.ParseError(n))
			}
			if err := r.bytes(number, value); err != nil {
				return err
			}
			data = data[n:]
		default:
			return fmt.Errorf("%w: field %d of type %d", errWire, number, kind)
		}
	}
	return nil
}

func (r *response) number(field protowire.Number, value uint64) {
	switch field {
	case fieldRevision:
		r.revision = value
	case fieldResumed:
		r.resumed = value != 0
	case fieldReset:
		r.reset = value != 0
	case fieldComplete:
		r.complete = value != 0
	case fieldBatch:
		r.batch = value
	case fieldBaseRevisions: // one alone need not be packed
		r.bases = append(r.bases, value)
	}
}

func (r *response) bytes(field protowire.Number, value []byte) error {
	switch field {
	case fieldStoreID:
		r.storeID = string(value)
	case fieldRuleSetID:
		r.id = string(value)
	case fieldChanges:
		r.changes++
	case fieldDrainServers:
		r.drainServers = append(r.drainServers, string(value))
	case fieldBaseRevisions:
		return r.packedBases(value)
	case fieldDrain, fieldRetryAfter:
		// Read as a response of its own: its type is one of protobuf's.
		var whole agentv1.SyncResponse
		tagged := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), value)
		if err := protobuf.Unmarshal(tagged, &whole); err != nil {
			return fmt.Errorf("%w: %w", errWire, err)
		}
		r.drain = max(r.drain, whole.GetDrain().AsDuration())
		r.again = max(r.again, whole.GetRetryAfter().AsDuration())
	}
	return nil
}

func (r *response) packedBases(packed []byte) error {
	for len(packed) > 0 {
		base, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return fmt.Errorf("%w: %w", errWire, protowire.ParseError(n))
		}
		r.bases, packed = append(r.bases, base), packed[n:]
	}
	return nil
}
