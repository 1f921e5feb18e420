package publish

import (
	"slices"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/pack"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
)

// messageLimit bounds the changes in one message. A policy that is larger goes alone.
const messageLimit = 64 << 10

// wholeAtOnce is of how many policies there are messages at once where all are encoded: of thousands they would take more
// memory than their encodings, and be in the way of whatever else is made when a fleet comes.
const wholeAtOnce = 128

// encoding is changes as encoded SyncResponses, in one of both forms or in both.
type encoding struct {
	packer *pack.Packer
	// messages are nil from when there is a packed form until somebody asks for them: of changes that streams missed, each
	// others, they would take more memory than all else that is published.
	messages [][]byte
	// short is what packed returned.
	short [][]byte
	size  int // of the messages, in bytes
}

func newEncoding(packer *pack.Packer, messages [][]byte) *encoding {
	e := &encoding{packer: packer, messages: messages}
	for _, message := range messages {
		e.size += len(message)
	}
	return e
}

// packed returns the messages in packed form, or as they are where that gains little.
func (e *encoding) packed() [][]byte {
	switch {
	case e.short != nil:
	case e.size < packMin:
		e.short = e.messages
	default:
		e.short, e.messages = e.pack(), nil
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
		var err error
		if messages, err = appendChange(messages, change); err != nil {
			return nil, err
		}
	}
	return messages, nil
}

// appendChange puts a change behind the last of the messages, of which there is at least one, or into another.
func appendChange(messages [][]byte, change *agentv1.RuleSetChange) ([][]byte, error) {
	message := &agentv1.SyncResponse{Changes: []*agentv1.RuleSetChange{change}}
	size := proto.Size(message)
	last := len(messages) - 1
	if len(messages[last]) > 0 && len(messages[last])+size > messageLimit {
		// Where there is more than one, there will be many: they are made as large as they get.
		messages = append(messages, make([]byte, 0, max(size, messageLimit)))
		last++
	}
	encoded, err := proto.MarshalOptions{UseCachedSize: true}.MarshalAppend(messages[last], message)
	if err != nil {
		return nil, err
	}
	messages[last] = encoded
	return messages, nil
}

// encodeWhole does what encode does with the changes that make the rules of an empty rule set, a few policies at a time.
func encodeWhole(policies []*policy.Policy, sets []*policy.DomainSet) ([][]byte, error) {
	messages, err := encode((&ruleset.RuleSet{}).Changes(compile.Rules(nil, sets)))
	if err != nil {
		return nil, err
	}
	for some := range slices.Chunk(policies, wholeAtOnce) {
		for _, change := range (&ruleset.RuleSet{}).Changes(compile.Rules(some, nil)) {
			if messages, err = appendChange(messages, change); err != nil {
				return nil, err
			}
		}
	}
	return messages, nil
}
