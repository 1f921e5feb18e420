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
// where those are not the ones that it has in the active one: these it has already. It returns the match
// sets that it has no longer.
func (d *Datapath) remapAll(generation uint32) (replaced map[door]bool, err error) {
	clock, err := readClock()
	if err != nil {
		return nil, err
	}
	doors := map[door]uint64{}
	replaced = map[door]bool{}
	scope := d.names.stale[d.active]
	if scope[everyName] || d.names.moves(d.active, generation) {
		scope = nil
	}
	for o := range d.table.Owners(clock.now, scope) {
		if !d.names.affected(o.Name, d.active) {
			continue
		}
		has, wants := d.names.matchSets(o.Name, d.active), d.names.matchSets(o.Name, generation)
		for _, set := range wants {
			if slices.Contains(has, set) {
				continue
			}
			key := door{o.Address, set}
			doors[key] = max(doors[key], d.expiryOf(o, clock))
		}
		for _, set := range has {
			if !slices.Contains(wants, set) {
				replaced[door{o.Address, set}] = true
			}
		}
	}
	return replaced, d.remap(doors)
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
	if stale[text] || n.movesWith(text, generation) {
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
	var bucket bpf.DatapathAnswerBucket
	question := d.names.key.QuestionHash(hashes[0], uint64(observe.QuestionFor(a)))
	if err := d.kernel.Answers.Lookup(bpf.AnswerBucket(question, d.kernel.Answers.MaxEntries()), &bucket); err != nil {
		return 0
	}
	expires, _ := bucket.AnswerTo(question) // if it gave way to another, the event told all
	return expires
}

// remap adds match sets to addresses.
func (d *Datapath) remap(doors map[door]uint64) error {
	entries := make([]bpf.DatapathRemapEntry, 0, len(doors))
	for _, key := range sortedDoors(doors) {
		entries = append(entries, bpf.DatapathRemapEntry{
			Address: address(key.address), MatchSet: key.matchSet, ExpiresAt: doors[key],
		})
	}
	_, err := d.kernel.changeMappings(entries)
	return err
}

// changeMappings adds to mappings and takes from them, in order, and returns how many entries came to
// nothing. A program does it: it works the way that dns_response does, with which any other way would race.
func (k *kernel) changeMappings(entries []bpf.DatapathRemapEntry) (failed int, err error) {
	for len(entries) > 0 {
		var request, answer bpf.DatapathRemapRequest
		n := copy(request.Entries[:], entries)
		request.Count = uint32(n) //nolint:gosec // at most what a request has
		if _, err := k.programs[bpf.DatapathProgRemap].Run(&ebpf.RunOptions{Context: &request, ContextOut: &answer}); err != nil {
			return failed, fmt.Errorf("change mappings: %w", err)
		}
		failed += int(answer.Failed)
		entries = entries[n:]
	}
	return failed, nil
}

func sortedDoors[V any](doors map[door]V) []door {
	sorted := make([]door, 0, len(doors))
	for key := range doors {
		sorted = append(sorted, key)
	}
	slices.SortFunc(sorted, func(a, b door) int {
		return cmp.Or(a.address.Compare(b.address), cmp.Compare(a.matchSet, b.matchSet))
	})
	return sorted
}
