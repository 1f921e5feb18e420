package observe

import (
	"net/netip"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
)

// namedAddresses is of how many addresses the last names are remembered.
const namedAddresses = 65_536

// lastNames holds the names under which addresses were last seen, whether they still live or not. At its
// capacity the address that was not seen for longest goes.
type lastNames struct {
	capacity       int
	addresses      map[[16]byte]*namedAddress
	oldest, newest *namedAddress // in order of the last sight
}

// namedAddress is small: nearly every address has one name.
type namedAddress struct {
	address      [16]byte
	last         domain.Name
	earlier      *[flow.MaxDomains - 1]domain.Name // the newest first; nil: none
	older, newer *namedAddress
}

func newLastNames(capacity int) lastNames {
	return lastNames{capacity: capacity, addresses: map[[16]byte]*namedAddress{}}
}

// put makes name the last one of an address.
func (l *lastNames) put(address netip.Addr, name domain.Name) {
	known := l.addresses[address.As16()]
	if known == nil {
		if len(l.addresses) >= l.capacity {
			delete(l.addresses, l.oldest.address)
			l.unlink(l.oldest)
		}
		known = &namedAddress{address: address.As16(), last: name}
		l.addresses[known.address] = known
	} else {
		l.unlink(known)
		known.put(name)
	}
	l.append(known)
}

func (n *namedAddress) put(name domain.Name) {
	if n.last == name {
		return
	}
	if n.earlier == nil {
		n.earlier = &[flow.MaxDomains - 1]domain.Name{}
	}
	moved := n.last
	n.last = name
	for i, next := range n.earlier {
		n.earlier[i] = moved
		if next == name || next.IsZero() {
			break
		}
		moved = next
	}
}

// of returns the names of an address, the newest first.
func (l *lastNames) of(address netip.Addr) (names []domain.Name) {
	known := l.addresses[address.As16()]
	if known == nil {
		return nil
	}
	names = append(names, known.last)
	if known.earlier == nil {
		return names
	}
	for _, name := range known.earlier {
		if name.IsZero() {
			break
		}
		names = append(names, name)
	}
	return names
}

func (l *lastNames) append(n *namedAddress) {
	n.older, n.newer = l.newest, nil
	if l.newest == nil {
		l.oldest = n
	} else {
		l.newest.newer = n
	}
	l.newest = n
}

func (l *lastNames) unlink(n *namedAddress) {
	if n.older == nil {
		l.oldest = n.newer
	} else {
		n.older.newer = n.newer
	}
	if n.newer == nil {
		l.newest = n.older
	} else {
		n.newer.older = n.older
	}
	n.older, n.newer = nil, nil
}
