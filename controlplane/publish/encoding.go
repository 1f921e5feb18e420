package publish

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/pack"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// messageLimit bounds the changes in one message. A policy that is larger goes alone.
const messageLimit = 64 << 10

// encoding is changes as encoded SyncResponses, in both forms.
type encoding struct {
	packer   *pack.Packer
	messages [][]byte
	// short is what packed returned.
	short [][]byte
}

func (e *encoding) size() (bytes int) {
	for _, message := range e.messages {
		bytes += len(message)
	}
	return bytes
}

// packed returns the messages in packed form, or as they are where that gains little.
func (e *encoding) packed() [][]byte {
	if e.short == nil {
		e.short = e.messages
		if e.size() >= packMin {
			e.short = e.pack()
		}
	}
	return e.short
}

func (e *encoding) pack() (packs [][]byte) {
	var group []byte
	flush := func() {
		if len(group) > 0 {
			packs = append(packs, e.packer.Pack(group))
			group = group[:0]
		}
	}
	for _, message := range e.messages {
		if len(group)+len(message) > packLimit {
			flush()
		}
		// Encodings of one message type, one behind the other, encode both: see SyncService.
		group = append(group, message...)
	}
	flush()
	return slices.Clip(packs)
}

// encode splits changes into messages.
func encode(changes []*agentv1.RuleSetChange) ([][]byte, error) {
	messages := [][]byte{nil}
	for _, change := range changes {
		encoded, err := proto.Marshal(&agentv1.SyncResponse{Changes: []*agentv1.RuleSetChange{change}})
		if err != nil {
			return nil, err
		}
		last := len(messages) - 1
		if len(messages[last]) > 0 && len(messages[last])+len(encoded) > messageLimit {
			messages = append(messages, nil)
			last++
		}
		messages[last] = append(messages[last], encoded...)
	}
	return messages, nil
}
