// Package ingest holds the live mappings of all nodes in memory. Batches of what nodes saw go in, lists
// and watches by name, address and node come out. A mapping ends at its expiry, when its node says so by
// a snapshot that lacks it, or when there are too many and it is the one that would end first: the last
// is counted, never silent. Beside them it holds the flow events of all nodes, bounded by number and age.
// Nothing of it is on disk: nodes send what they hold when they connect.
package ingest

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
)

// Mapping is a fact that a node observed: a name had an address. It is immutable.
type Mapping struct {
	Position
	// Chain holds the aliases between the name and the address.
	Chain []domain.Name
	// Former holds those that left it, each with a time of its own.
	Former []FormerAlias
	// Client asked last; the zero Addr when that is not known.
	Client                       netip.Addr
	Expires, FirstSeen, LastSeen time.Time
}

// FormerAlias is an alias that left the chain, and opens the address until it ends.
type FormerAlias struct {
	Name    domain.Name
	Expires time.Time
}

// Position identifies a mapping, and says where it stands in lists: domains in canonical order (by
// labels from the right, RFC 4034, 6.1, so that a domain and all below it are neighbours), then
// addresses, then nodes. The zero Position is before all others.
type Position struct {
	Domain  domain.Name
	Address netip.Addr
	Node    node.ID
}

// Compare orders positions.
func (p Position) Compare(other Position) int {
	return cmp.Or(
		compareNames(p.Domain.String(), other.Domain.String()),
		p.Address.Compare(other.Address),
		strings.Compare(p.Node.String(), other.Node.String()),
	)
}

// maxAliases bounds the chain of a mapping, and the aliases of its earlier chains. Agents keep 16 of each.
const maxAliases = 64

// FromProto checks a mapping that a node reported. The node is who reported it, whatever the message says.
func FromProto(reporter node.ID, message *namewardv1.Mapping) (*Mapping, error) {
	name, err := domain.ParseCanonical(message.GetDomain())
	if err != nil {
		return nil, fmt.Errorf("read domain: %w", err)
	}
	address, err := netip.ParseAddr(message.GetAddress())
	if err != nil {
		return nil, fmt.Errorf("read address: %w", err)
	}
	if message.GetExpireTime() == nil {
		return nil, errors.New("read expire time: there is none")
	}
	if n := max(len(message.GetChain()), len(message.GetFormerAliases())); n > maxAliases {
		return nil, fmt.Errorf("read chain: %d aliases are more than %d", n, maxAliases)
	}
	m := &Mapping{
		Position:  Position{Domain: name, Address: address.Unmap().WithZone(""), Node: reporter},
		Expires:   message.GetExpireTime().AsTime(),
		FirstSeen: readTime(message.GetFirstSeenTime()),
		LastSeen:  readTime(message.GetLastSeenTime()),
	}
	for _, text := range message.GetChain() {
		alias, err := domain.ParseCanonical(text)
		if err != nil {
			return nil, fmt.Errorf("read chain: %w", err)
		}
		m.Chain = append(m.Chain, alias)
	}
	for _, former := range message.GetFormerAliases() {
		alias, err := domain.ParseCanonical(former.GetDomain())
		if err != nil {
			return nil, fmt.Errorf("read former alias: %w", err)
		}
		m.Former = append(m.Former, FormerAlias{alias, readTime(former.GetExpireTime())})
	}
	if message.GetClient() != "" {
		if m.Client, err = netip.ParseAddr(message.GetClient()); err != nil {
			return nil, fmt.Errorf("read client: %w", err)
		}
	}
	return m, nil
}

// Shift moves every time by what the clocks of node and server are apart. It is for a mapping that the
// table does not have yet.
func (m *Mapping) Shift(apart time.Duration) {
	if apart == 0 {
		return
	}
	times := []*time.Time{&m.Expires, &m.FirstSeen, &m.LastSeen}
	for i := range m.Former {
		times = append(times, &m.Former[i].Expires)
	}
	for _, at := range times {
		if !at.IsZero() {
			*at = at.Add(apart)
		}
	}
}

// Message returns the mapping as clients read it.
func (m *Mapping) Message() *namewardv1.Mapping {
	message := &namewardv1.Mapping{
		Domain: m.Domain.String(), Address: m.Address.String(), Node: m.Node.ResourceName(),
		ExpireTime:    timestamppb.New(m.Expires),
		FirstSeenTime: writeTime(m.FirstSeen),
		LastSeenTime:  writeTime(m.LastSeen),
	}
	for _, alias := range m.Chain {
		message.Chain = append(message.Chain, alias.String())
	}
	for _, alias := range m.Former {
		message.FormerAliases = append(message.FormerAliases, &namewardv1.Mapping_FormerAlias{
			Domain: alias.Name.String(), ExpireTime: writeTime(alias.Expires),
		})
	}
	if m.Client.IsValid() {
		message.Client = m.Client.String()
	}
	return message
}

func readTime(message *timestamppb.Timestamp) time.Time {
	if message == nil {
		return time.Time{}
	}
	return message.AsTime()
}

func writeTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// compareNames orders names by their labels from the right; a name comes before those below it.
func compareNames(a, b string) int {
	if a == b {
		return 0
	}
	// Past what they end in alike; most names of a fleet share much of it.
	i, j := len(a), len(b)
	for i > 0 && j > 0 && a[i-1] == b[j-1] {
		i, j = i-1, j-1
	}
	switch {
	case i == 0 && b[j-1] == '.':
		return -1 // b is below a
	case j == 0 && a[i-1] == '.':
		return 1
	}
	// The labels in which they differ first begin behind the dots before, and end where both go on alike.
	end := 0
	if dot := strings.IndexByte(a[i:], '.'); dot >= 0 {
		end = dot
	} else {
		end = len(a) - i
	}
	return strings.Compare(a[strings.LastIndexByte(a[:i], '.')+1:i+end], b[strings.LastIndexByte(b[:j], '.')+1:j+end])
}
