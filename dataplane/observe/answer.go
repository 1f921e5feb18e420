// Package observe holds what the node knows of the world: which name had which address, until when,
// and who asked. The datapath records each response that the kernel learned; the reporter and the
// local server read. Everything is bounded, and what had to go is counted.
package observe

import (
	"net/netip"
	"slices"
	"time"

	"github.com/nameward/nameward/api/domain"
)

// Answer is one learned DNS response.
type Answer struct {
	Names     []domain.Name // the name that was asked, then its aliases in order of the chain
	Question  uint16        // the type that was asked for
	Addresses []Address
	Client    netip.Addr // who asked
	LearnedAt time.Time
	ExpiresAt time.Time // until when the kernel lets the names open the addresses
}

// Address is one address of an answer.
type Address struct {
	Address netip.Addr
	Names   int // the first so many names of the chain own the address
}

// Mapping is an observed fact: a name that was asked had an address.
type Mapping struct {
	Domain    domain.Name   // the name that was asked
	Chain     []domain.Name // its aliases up to the owner of the address, as last seen; not to be changed
	Address   netip.Addr
	Client    netip.Addr // who asked last
	FirstSeen time.Time
	LastSeen  time.Time
	// AnsweredAt is when the address last answered a question for addresses of its family; zero: never.
	// Such an answer the kernel prolongs without saying so.
	AnsweredAt time.Time
	ExpiresAt  time.Time
	// Dropped: it gave way before it expired, at ExpiresAt. Only among changes.
	Dropped bool
	// Former are aliases that left the chain, and may still live; not to be changed.
	Former []FormerAlias
}

// FormerAlias is an alias that left the chain. It owns the address until a time of its own.
type FormerAlias struct {
	Name      domain.Name
	ExpiresAt time.Time
}

// Owns reports whether name is the name that was asked or one of its aliases.
func (m *Mapping) Owns(name domain.Name) bool {
	return m.Domain == name || slices.Contains(m.Chain, name)
}

// Ownership says that an address belongs to a name: of every mapping the asked name and each alias,
// also of aliases that it had before while those live.
type Ownership struct {
	Name      domain.Name
	Address   netip.Addr
	ExpiresAt time.Time
	Asked     domain.Name
	Latest    bool // the address and the alias were in the last answer to the question for their family
}

// DNS types of questions for addresses.
const (
	typeA    = 1
	typeAAAA = 28
)

// QuestionFor returns the type of the question that asks for addresses of the family of one.
func QuestionFor(a netip.Addr) uint16 {
	if a.Is4() {
		return typeA
	}
	return typeAAAA
}
