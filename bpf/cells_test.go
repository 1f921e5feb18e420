package bpf

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// verdictOf looks a key up as the programs do, and tells how many cells it looked at.
func verdictOf(p part, bits uint8, seed uint32, laid map[uint32]DatapathVerdict, key VerdictKey) (words []uint64, looked int) {
	p.bits = bits
	at, role := p.first()+p.home(hashVerdict(seed, key)), DatapathCellRoleCELL_HOME
	for range p.chain {
		cell := laid[at]
		looked++
		if cell.Role != role {
			return words, looked
		}
		if cell.Workload == key.Workload && cell.Component == key.Component {
			for _, word := range cell.Entries {
				if word == 0 {
					break
				}
				words = append(words, word)
			}
			if cell.Flags&DatapathVerdictFlagVERDICT_MORE == 0 {
				return words, looked
			}
		}
		if cell.Next == 0 {
			return words, looked
		}
		at, role = cell.Next, DatapathCellRoleCELL_AWAY
	}
	return words, looked
}

func entriesFrom(first, count int) (entries []VerdictEntry, words []uint64) {
	for i := range count {
		e := VerdictEntry{Position: uint32(first+i) % MaxPositions, LastPort: 65535, Flags: DatapathVerdictFlagVERDICT_DENY * DatapathVerdictFlag(i%2)}
		entries, words = append(entries, e), append(words, e.word())
	}
	return entries, words
}

func tooMany(err error) bool {
	var room *RoomError
	return errors.As(err, &room)
}

// Whatever is laid out in either generation is found, with all of its rules; nothing else is; and without room for all
// it is refused.
func TestVerdictsAreFound(t *testing.T) {
	full := 0
	rapid.Check(t, func(t *rapid.T) {
		p := part{generation: rapid.Uint32Range(0, 1).Draw(t, "generation"), most: 256, chain: 64}
		seed := rapid.Uint32().Draw(t, "seed")
		verdicts, want, cells := map[VerdictKey][]VerdictEntry{}, map[VerdictKey][]uint64{}, 0
		for i := range rapid.IntRange(0, 300).Draw(t, "keys") {
			key := VerdictKey{rapid.Uint32Range(0, 40).Draw(t, "workload"), DatapathComponent(rapid.Uint32Range(0, 10).Draw(t, "component"))}
			if verdicts[key] != nil {
				continue
			}
			verdicts[key], want[key] = entriesFrom(i, max(rapid.IntRange(-60, 80).Draw(t, "rules"), 1))
			cells += verdictCells(verdicts[key])
		}
		laid, bits, err := layVerdicts(p, seed, verdicts)
		if tooMany(err) && cells >= int(p.most) {
			full++
			return
		}
		if err != nil || len(laid) != cells {
			t.Fatalf("%d of %d cells, %v", len(laid), cells, err)
		}
		for at := range laid {
			if at/p.most != p.generation || at%p.most >= 1<<bits {
				t.Fatalf("cell %d is not of generation %d, with %d bits", at, p.generation, bits)
			}
		}
		for workload := range uint32(41) {
			for component := range DatapathComponent(11) {
				key := VerdictKey{workload, component}
				if got, _ := verdictOf(p, bits, seed, laid, key); !slices.Equal(got, want[key]) {
					t.Fatalf("%v: got %x, want %x", key, got, want[key])
				}
			}
		}
	})
	if full == 0 {
		t.Error("no table was full")
	}
}

// A table takes as many verdicts of few rules as it has cells but one, and all that two sets of rules of any kind had
// room for when each had a page for ten of them.
func TestRoomOfCells(t *testing.T) {
	const most = 4096
	p := part{generation: 1, most: most, chain: int(DatapathVerdictLimitVERDICT_CHAIN)}
	for _, c := range []struct {
		keys, rules int
		fits        bool
	}{
		{most - 1, 6, true}, {most + 1, 1, false}, {most/2 - 1, 10, true}, {most/4 - 1, 20, true}, {most / 16, 80, true}, {most / 13, 80, false},
	} {
		verdicts := map[VerdictKey][]VerdictEntry{}
		for i := range c.keys {
			verdicts[VerdictKey{uint32(i / 16), DatapathComponent(i % 16)}], _ = entriesFrom(i, c.rules)
		}
		laid, bits, err := layVerdicts(p, 7, verdicts)
		if tooMany(err) == c.fits || err != nil && c.fits {
			t.Errorf("%d verdicts of %d rules: %v", c.keys, c.rules, err)
		}
		for key, entries := range verdicts {
			if got, _ := verdictOf(p, bits, 7, laid, key); c.fits && len(got) != len(entries) {
				t.Fatalf("%d verdicts of %d rules: %v has %d", c.keys, c.rules, key, len(got))
			}
		}
	}
}

// What is usual is found at home, and what is not there is known not to be by its home.
func TestUsualVerdictIsAtHome(t *testing.T) {
	for _, keys := range []int{100, 1000, 10_000} {
		verdicts := map[VerdictKey][]VerdictEntry{}
		for i := range keys {
			verdicts[VerdictKey{uint32(i), DatapathComponentCOMPONENT_MATCH_SET << DatapathComponentCOMPONENT_SHIFT}], _ = entriesFrom(i, 1)
		}
		verdictCells, verdictBits, err := LayVerdicts(0, 7, verdicts)
		if err != nil {
			t.Fatal(err)
		}
		v := part{most: uint32(DatapathVerdictLimitVERDICT_CELLS), chain: int(DatapathVerdictLimitVERDICT_CHAIN)}
		var looked [2]int
		for i := range keys {
			for j, workload := range []int{i, i + keys} {
				_, n := verdictOf(v, verdictBits, 7, verdictCells, VerdictKey{uint32(workload), DatapathComponentCOMPONENT_MATCH_SET << DatapathComponentCOMPONENT_SHIFT})
				looked[j] += n
			}
		}
		for j, what := range []string{"a verdict that is there", "one that is not"} {
			mean := float64(looked[j]) / float64(keys)
			t.Logf("%d keys, %s: %.3f cells", keys, what, mean)
			if mean > 1.35 {
				t.Errorf("%d keys, %s: %.3f cells, want 1.35 at most", keys, what, mean)
			}
		}
	}
}
