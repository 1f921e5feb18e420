package datapath

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/observe"
)

// door is a match set that an address is to have.
type door struct {
	address  netip.Addr
	matchSet uint32
}

// remapAll gives the addresses of every live name the match sets that the name has in a generation,
// where those are not the ones that it has in the active one: these it has already.
func (d *Datapath) remapAll(generation uint32) error {
	clock, err := readClock()
	if err != nil {
		return err
	}
	doors := map[door]uint64{}
	scope := d.names.stale[d.active]
	if scope[everyName] {
		scope = nil
	}
	for o := range d.table.Owners(clock.now, scope) {
		if !d.names.affected(o.Name, d.active) {
			continue
		}
		has := d.names.matchSets(o.Name, d.active)
		for _, set := range d.names.matchSets(o.Name, generation) {
			if slices.Contains(has, set) {
				continue
			}
			key := door{o.Address, set}
			doors[key] = max(doors[key], d.expiryOf(o, clock))
		}
	}
	return d.remap(doors)
}

// everyName is what lower lists as changed when every name may have other match sets.
const everyName = "."

// affected reports whether a name can have other match sets now than when the generation was written.
func (n *names) affected(name domain.Name, generation uint32) bool {
	stale := n.stale[generation]
	if stale == nil || stale[everyName] {
		return true
	}
	if !name.Plain() {
		return false // only `*` matches it
	}
	text := name.String()
	if stale[text] {
		return true
	}
	for i := range len(text) {
		if text[i] == '.' && stale[text[i+1:]] {
			return true
		}
	}
	return false
}

// expiryOf is when an ownership ends, in ticks: the kernel prolongs the last answer without saying so
// each time.
func (d *Datapath) expiryOf(o observe.Ownership, c clock) uint64 {
	ticks := c.toTicks(o.ExpiresAt)
	if o.Latest {
		ticks = max(ticks, d.answerExpiry(o.Asked, o.Address))
	}
	return ticks
}

// answerExpiry reads the true expiry of the last answer to the question for a name and the family of an
// address, in ticks; 0 if it is not known.
func (d *Datapath) answerExpiry(asked domain.Name, a netip.Addr) uint64 {
	wire := asked.Wire()
	hashes := d.names.key.SuffixHashes(wire)
	if len(hashes) == 0 {
		return 0
	}
	var answer bpf.DatapathAnswer
	key := d.names.key.QuestionHash(hashes[0], uint64(observe.QuestionFor(a)))
	if err := d.kernel.Answers.Lookup(&key, &answer); err != nil {
		return 0 // evicted, or never there: then the event told all
	}
	return answer.ExpiresAt
}

// remap adds match sets to addresses. A program does it: it inserts the way that dns_response does,
// with which any other way would race.
func (d *Datapath) remap(doors map[door]uint64) error {
	var request bpf.DatapathRemapRequest
	flush := func() error {
		if request.Count == 0 {
			return nil
		}
		if _, err := d.kernel.programs[bpf.DatapathProgRemap].Run(&ebpf.RunOptions{Context: &request}); err != nil {
			return fmt.Errorf("remap known names: %w", err)
		}
		request = bpf.DatapathRemapRequest{}
		return nil
	}
	for _, key := range sortedDoors(doors) {
		request.Entries[request.Count] = bpf.DatapathRemapEntry{
			Address: address(key.address), MatchSet: key.matchSet, ExpiresAt: doors[key],
		}
		request.Count++
		if int(request.Count) == len(request.Entries) {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}

func sortedDoors(doors map[door]uint64) []door {
	sorted := make([]door, 0, len(doors))
	for key := range doors {
		sorted = append(sorted, key)
	}
	slices.SortFunc(sorted, func(a, b door) int {
		return cmp.Or(a.address.Compare(b.address), cmp.Compare(a.matchSet, b.matchSet))
	})
	return sorted
}
