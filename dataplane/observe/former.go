package observe

import (
	"container/list"
	"net/netip"
	"slices"
	"time"

	"github.com/nameward/nameward/api/domain"
)

// formerPerAddress is how many names of one address are remembered after their mappings ended.
const formerPerAddress = 256

// formerNames holds the names that addresses had, aliases too, once their mappings live no longer:
// connections outlive mappings. At its capacity, in names, the address goes whose mappings ended first.
type formerNames struct {
	capacity  int
	count     int
	addresses map[netip.Addr]*list.Element
	ended     list.List // of *formerAddress, the one that ended last at the back
	forgot    bool      // some address that is not here had names
	missed    bool      // some address, here or not, had other names
}

type formerAddress struct {
	address netip.Addr
	names   []domain.Name // the one that ended last at the end
	forgot  bool          // had more
}

func newFormerNames(capacity int) formerNames {
	return formerNames{capacity: capacity, addresses: map[netip.Addr]*list.Element{}}
}

func (f *formerNames) put(address netip.Addr, name domain.Name) {
	element := f.addresses[address]
	if element == nil {
		element = f.ended.PushBack(&formerAddress{address: address, forgot: f.forgot})
		f.addresses[address] = element
	}
	f.ended.MoveToBack(element)
	known := formerOf(element)
	if i := slices.Index(known.names, name); i >= 0 {
		known.names = append(slices.Delete(known.names, i, i+1), name)
		return
	}
	if len(known.names) == formerPerAddress {
		known.names, known.forgot = slices.Delete(known.names, 0, 1), true
		f.count--
	}
	known.names = append(known.names, name)
	f.count++
	for f.count > f.capacity {
		f.forget(f.ended.Front())
	}
}

func (f *formerNames) forget(element *list.Element) {
	gone := formerOf(element)
	delete(f.addresses, gone.address)
	f.ended.Remove(element)
	f.count -= len(gone.names)
	f.forgot = true
}

func formerOf(element *list.Element) *formerAddress { return element.Value.(*formerAddress) } //nolint:forcetypeassert // nothing else is in the list

// FormerName is a name that an address once had.
type FormerName struct {
	Address netip.Addr
	Name    domain.Name
}

// RestoreFormer takes in names that addresses were known to have had before.
func (t *Table) RestoreFormer(names []FormerName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, n := range names {
		t.former.put(n.Address, n.Name)
	}
}

// Names are all names that an address is known to have had.
type Names struct {
	Names []domain.Name
	// Whole: there were no others; false: some may have been forgotten.
	Whole bool
}

// NamesOf returns, for each of the addresses, the names that it has or ever had, as far as they are
// remembered: aliases too, expired or not.
func (t *Table) NamesOf(addresses map[netip.Addr]bool) map[netip.Addr]Names {
	found := make(map[netip.Addr]Names, len(addresses))
	t.mu.Lock()
	defer t.mu.Unlock()
	for address := range addresses {
		n := Names{Whole: !t.former.forgot}
		if element := t.former.addresses[address]; element != nil {
			known := formerOf(element)
			n = Names{slices.Clone(known.names), !known.forgot}
		}
		n.Whole = n.Whole && !t.former.missed
		found[address] = n
	}
	for _, e := range t.expiry {
		n, asked := found[e.address]
		if !asked {
			continue
		}
		t.ownersIn(e, time.Time{}, func(o Ownership) bool {
			if !slices.Contains(n.Names, o.Name) {
				n.Names = append(n.Names, o.Name)
			}
			return true
		})
		found[e.address] = n
	}
	return found
}

// Missed says that answers were not recorded: of no address the names are known to be all.
func (t *Table) Missed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.former.missed = true
}
