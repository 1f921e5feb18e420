package flow

import (
	"cmp"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
)

// Position identifies a flow event among those of all nodes, and says where it stands in lists. The zero
// Position is before all others.
type Position struct {
	Node node.ID
	Key  Key
}

// Compare orders positions by node, then by key.
func (p Position) Compare(other Position) int {
	return cmp.Or(strings.Compare(p.Node.String(), other.Node.String()), p.Key.Compare(&other.Key))
}

// Marshal returns the position as bytes for a page token.
func (p Position) Marshal() ([]byte, error) {
	wire, err := proto.MarshalOptions{Deterministic: true}.Marshal(p.Key.ToProto(p.Node))
	if err != nil {
		return nil, fmt.Errorf("encode position: %w", err)
	}
	return wire, nil
}

// ParsePosition reads what Marshal returned.
func ParsePosition(wire []byte) (Position, error) {
	var message namewardv1.FlowEvent
	if err := proto.Unmarshal(wire, &message); err != nil {
		return Position{}, fmt.Errorf("decode position: %w", err)
	}
	id, err := node.ParseResourceName(message.GetNode())
	if err != nil {
		return Position{}, fmt.Errorf("read node: %w", err)
	}
	key, err := KeyFromProto(&message)
	return Position{id, key}, err
}
