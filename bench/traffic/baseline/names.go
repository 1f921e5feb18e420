package main

import (
	"net/netip"
	"sync"
)

// A nameTable keeps the names of each address, and judges an address by all of them whenever an answer has
// it, as proxies do that derive what an address may be used for from the names that it has now. That is what
// costs more the more names share an address.
type nameTable struct {
	opener *opener
	mu     sync.Mutex // guards names
	names  map[netip.Addr][]string
}

func newNameTable(opener *opener) *nameTable {
	return &nameTable{opener: opener, names: map[netip.Addr][]string{}}
}

func (t *nameTable) learn(message []byte) error {
	name, addresses, err := readAnswer(message)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		if !t.record(address, name) {
			continue
		}
		if err := t.opener.set.add(address); err != nil {
			return err
		}
	}
	return nil
}

// record notes that an address has a name, and tells whether any name allows it.
func (t *nameTable) record(address netip.Addr, name string) (allowed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	known := false
	for _, other := range t.names[address] {
		known = known || other == name
		allowed = t.opener.allows(other) || allowed
	}
	if !known {
		t.names[address] = append(t.names[address], name)
	}
	return allowed || t.opener.allows(name)
}
