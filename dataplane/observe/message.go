package observe

import (
	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
)

// ToProto returns the mapping as the message of a node.
func (m *Mapping) ToProto(id node.ID) *namewardv1.Mapping {
	message := &namewardv1.Mapping{
		Domain:        m.Domain.String(),
		Address:       m.Address.String(),
		Node:          id.ResourceName(),
		ExpireTime:    timestamppb.New(m.ExpiresAt),
		FirstSeenTime: timestamppb.New(m.FirstSeen),
		LastSeenTime:  timestamppb.New(m.LastSeen),
	}
	if m.Client.IsValid() {
		message.Client = m.Client.Unmap().String()
	}
	for _, alias := range m.Chain {
		message.Chain = append(message.Chain, alias.String())
	}
	for _, alias := range m.Former {
		message.FormerAliases = append(message.FormerAliases, &namewardv1.Mapping_FormerAlias{
			Domain: alias.Name.String(), ExpireTime: timestamppb.New(alias.ExpiresAt),
		})
	}
	return message
}
