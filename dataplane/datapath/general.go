package datapath

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/lower"
)

// generalPatterns is what one generation's part of the map of patterns holds, and which lists begin where
// no name is known.
type generalPatterns struct {
	every uint32
	list  uint16
	table map[uint16]bpf.DatapathGeneralPattern // by place
}

// generalKey is the key of a place, from 1 on, in a generation's part.
func generalKey(generation uint32, place uint16) uint32 {
	return generation*ruleset.MaxGeneralPatterns + uint32(place) - 1
}

// The programs go by the same limits; the compiler checks it.
const (
	_ = uint(bpf.DatapathGeneralLimitGENERAL_PATTERNS - ruleset.MaxGeneralPatterns)
	_ = uint(ruleset.MaxGeneralPatterns - bpf.DatapathGeneralLimitGENERAL_PATTERNS)
	_ = uint(bpf.DatapathGeneralLimitGENERAL_OF_NAME - ruleset.MaxGeneralPatternsOfName)
)

// readGeneral reads what is in the map under each generation.
func (k *kernel) readGeneral() (general [2]*generalPatterns, err error) {
	values := make([]bpf.DatapathGeneralPattern, k.Patterns.MaxEntries())
	if err := readArray(k.Patterns, values); err != nil {
		return general, err
	}
	for generation := range uint32(len(general)) {
		var whole bpf.DatapathGenerationFlags
		if err := k.Generations.Lookup(generation, &whole); err != nil {
			return general, fmt.Errorf("read generation: %w", err)
		}
		g := &generalPatterns{whole.Every, whole.List, map[uint16]bpf.DatapathGeneralPattern{}}
		for place := uint16(1); place <= ruleset.MaxGeneralPatterns; place++ {
			if value := values[generalKey(generation, place)]; value.Form != 0 {
				g.table[place] = value
			}
		}
		general[generation] = g
	}
	return general, nil
}

// writeGeneral makes the map hold the patterns under the generation. Places that are of no use any more
// are not led to, but cleared all the same, so that what is read back is what there is.
func (n *names) writeGeneral(generation uint32, general lower.GeneralPatterns) error {
	have := n.general[generation]
	want := &generalPatterns{uint32(general.Every), general.List, map[uint16]bpf.DatapathGeneralPattern{}}
	var keys []uint32
	var values []bpf.DatapathGeneralPattern
	for place, g := range general.Table {
		record := encodeGeneral(g)
		want.table[place] = record
		if have.table[place] != record {
			keys, values = append(keys, generalKey(generation, place)), append(values, record)
		}
	}
	for place := range have.table {
		if _, stays := want.table[place]; !stays {
			keys, values = append(keys, generalKey(generation, place)), append(values, bpf.DatapathGeneralPattern{})
		}
	}
	if err := putKeys(n.kernel.Patterns, keys, values); err != nil {
		return err
	}
	n.general[generation] = want
	return nil
}

var generalForms = map[domain.Form]bpf.DatapathGeneralForm{
	domain.Labels:      bpf.DatapathGeneralFormGENERAL_LABELS,
	domain.Within:      bpf.DatapathGeneralFormGENERAL_WITHIN,
	domain.BelowWithin: bpf.DatapathGeneralFormGENERAL_BELOW_WITHIN,
}

// encodeGeneral lays a pattern out. All lengths are below 255, those of a name.
func encodeGeneral(g lower.General) bpf.DatapathGeneralPattern {
	record := bpf.DatapathGeneralPattern{MatchSet: uint32(g.Set), Next: g.Next, Form: generalForms[g.Pattern.Form()]}
	if base := g.Pattern.Base(); !base.IsRoot() {
		record.BaseLabels = uint8(strings.Count(base.String(), ".") + 1) //nolint:gosec // see above
	}
	text := record.Text[:]
	if head := g.Pattern.Head(); head != "" {
		record.HeadLabels = uint8(strings.Count(head, ".") + 1) //nolint:gosec // see above
		record.HeadBytes = uint8(copy(text, wireText(head)))    //nolint:gosec // see above
	}
	text = text[record.HeadBytes:]
	prefix, suffix := g.Pattern.Affixes()
	record.PrefixBytes = uint8(copy(text, prefix))               //nolint:gosec // see above
	record.SuffixBytes = uint8(copy(text[len(prefix):], suffix)) //nolint:gosec // see above
	return record
}

// matchSets returns the match sets of a name in a generation, as the programs find them.
func (n *names) matchSets(name domain.Name, generation uint32) []uint32 {
	var sets []uint32
	general := n.general[generation]
	if general.every != 0 {
		sets = append(sets, general.every)
	}
	if !name.Plain() {
		return sets
	}
	own := n.ofName(name.String(), generation)
	sets = append(sets, uint32(own.set))
	if own.list != 0 {
		sets = append(sets, general.match(own.list, wireText(name.String()))...)
	}
	slices.Sort(sets)
	sets = slices.Compact(sets)
	if len(sets) > 0 && sets[0] == 0 {
		sets = sets[1:]
	}
	return sets
}

// match holds a name in wire form against the patterns of a list.
func (g *generalPatterns) match(list uint16, wire []byte) (sets []uint32) {
	labels := labelsOf(wire)
	for range ruleset.MaxGeneralPatternsOfName {
		if list == 0 {
			break
		}
		pattern := g.table[list]
		if matchesGeneral(&pattern, wire, labels) {
			sets = append(sets, pattern.MatchSet)
		}
		list = pattern.Next
	}
	return sets
}

// labelsOf returns where each label of a name in wire form begins.
func labelsOf(wire []byte) []int {
	var labels []int
	for at := 0; at < len(wire); at += 1 + int(wire[at]) {
		labels = append(labels, at)
	}
	return labels
}

// matchesGeneral is match_general of name.h.
func matchesGeneral(p *bpf.DatapathGeneralPattern, wire []byte, labels []int) bool {
	before := len(labels) - int(p.BaseLabels) - int(p.HeadLabels) - 1
	if before < 0 {
		return false
	}
	head := p.Text[:p.HeadBytes]
	if p.Form == bpf.DatapathGeneralFormGENERAL_LABELS {
		return bytes.HasPrefix(wire, head)
	}
	if (p.Form == bpf.DatapathGeneralFormGENERAL_WITHIN) != (before == 0) {
		return false
	}
	at := labels[len(labels)-int(p.BaseLabels)-1]
	label := wire[at+1 : at+1+int(wire[at])]
	prefix := p.Text[p.HeadBytes:][:p.PrefixBytes]
	suffix := p.Text[int(p.HeadBytes)+len(prefix):][:p.SuffixBytes]
	return len(label) >= len(prefix)+len(suffix) && bytes.HasPrefix(wire[labels[before]:], head) &&
		bytes.HasPrefix(label, prefix) && bytes.HasSuffix(label, suffix)
}
