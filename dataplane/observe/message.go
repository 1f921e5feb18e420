package observe

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
)

// Wall is a time as the wall clock says it now: a clock that was set since has other times for what was
// before. Both must have been read in this process.
func Wall(t, now time.Time) time.Time { return now.Round(0).Add(t.Sub(now)) }

// ToProto returns the mapping as the message of a node, with its times by the wall clock as it is now.
func (m *Mapping) ToProto(id node.ID, now time.Time) *namewardv1.Mapping {
	wall := func(t time.Time) *timestamppb.Timestamp { return timestamppb.New(Wall(t, now)) }
	message := &namewardv1.Mapping{
		Domain:        m.Domain.String(),
		Address:       m.Address.String(),
		Node:          id.ResourceName(),
		ExpireTime:    wall(m.ExpiresAt),
		FirstSeenTime: wall(m.FirstSeen),
		LastSeenTime:  wall(m.LastSeen),
	}
	if m.Client.IsValid() {
		message.Client = m.Client.Unmap().String()
	}
	for _, alias := range m.Chain {
		message.Chain = append(message.Chain, alias.String())
	}
	for _, alias := range m.Former {
		message.FormerAliases = append(message.FormerAliases, &namewardv1.Mapping_FormerAlias{
			Domain: alias.Name.String(), ExpireTime: wall(alias.ExpiresAt),
		})
	}
	return message
}
