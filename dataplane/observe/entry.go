package observe

import (
	"math"
	"net/netip"
	"time"

	"github.com/nameward/nameward/api/domain"
)

// entry is a mapping with its places in the orders of the table. There are many, so it is smaller than a Mapping.
type entry struct {
	domain          domain.Name
	chain           []domain.Name
	former          *[]FormerAlias // nil: none
	address, client netip.Addr

	firstSeen, lastSeen, answeredAt, expiresAt instant

	siblings *group
	suffixes []int32 // places in the index of owners
	sequence uint64  // of the last change

	older, newer   *entry // in order of the last sight
	previous, next *entry // of the same address

	position int32 // in the heap
	dropped  bool
}

// instant is a time in nanoseconds since the table was made. Like the times that it stands for, it does not
// follow a clock that is set.
type instant int64

const never instant = math.MinInt64 // the zero Time

// epoch is when a table was made.
type epoch struct{ made time.Time }

func (e epoch) instant(t time.Time) instant {
	if t.IsZero() {
		return never
	}
	return instant(t.Sub(e.made)) // centuries away it is as far as can be said
}

func (e epoch) time(i instant) time.Time {
	if i == never {
		return time.Time{}
	}
	return e.made.Add(time.Duration(i))
}

func (e epoch) entry(m *Mapping) *entry {
	made := &entry{
		domain: m.Domain, chain: m.Chain, address: m.Address, client: m.Client,
		firstSeen: e.instant(m.FirstSeen), lastSeen: e.instant(m.LastSeen),
		answeredAt: e.instant(m.AnsweredAt), expiresAt: e.instant(m.ExpiresAt), dropped: m.Dropped,
	}
	made.setFormer(m.Former)
	return made
}

func (e epoch) mapping(held *entry) Mapping {
	return Mapping{
		Domain: held.domain, Chain: held.chain, Address: held.address, Client: held.client,
		FirstSeen: e.time(held.firstSeen), LastSeen: e.time(held.lastSeen),
		AnsweredAt: e.time(held.answeredAt), ExpiresAt: e.time(held.expiresAt),
		Dropped: held.dropped, Former: held.formerAliases(),
	}
}

func (e *entry) formerAliases() []FormerAlias {
	if e.former == nil {
		return nil
	}
	return *e.former
}

func (e *entry) setFormer(aliases []FormerAlias) {
	e.former = nil
	if len(aliases) > 0 {
		e.former = &aliases
	}
}
