package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/domain/domaintest"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/enforce"
)

// learn has the resolver answer a question for a name of any bytes, given in wire form.
func (f *fixture) learn(t testing.TB, wire []byte, address netip.Addr) {
	t.Helper()
	f.id++
	question := slices.Concat([]byte{byte(f.id >> 8), byte(f.id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, wire, []byte{0, 1, 0, 1})
	f.run(t, bpf.DatapathProgDnsQueryForwarded, bpftest.Datagram(testClient, testResolver, question))
	a := address.As4()
	answer := slices.Concat(question, []byte{0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4}, a[:])
	answer[2], answer[7] = 0x80, 1
	f.run(t, bpf.DatapathProgDnsResponse, bpftest.Datagram(testResolver, testClient, answer))
}

// slotsOf gives the slots of an address that were ever used.
func (f *fixture) slotsOf(t testing.TB, address netip.Addr) (slots []uint64) {
	t.Helper()
	err := f.kernel.eachMapping(func(cells []bpf.DatapathMapping) error {
		for _, cell := range cells {
			if netip.AddrFrom16(cell.Address.Bytes).Unmap() != address {
				continue
			}
			for _, slot := range cell.Slots {
				if _, expiry := bpftest.Slot(slot); expiry != 0 {
					slots = append(slots, slot)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return slots
}

func (f *fixture) learned(t testing.TB, address netip.Addr) []uint32 {
	t.Helper()
	var sets []uint32
	for _, slot := range f.slotsOf(t, address) {
		set, _ := bpftest.Slot(slot)
		sets = append(sets, set)
	}
	slices.Sort(sets)
	return slices.Compact(sets)
}

// Each pattern opens what it should, whether it was there before the name was resolved or comes after.
func TestPatternsOpen(t *testing.T) {
	f := newFixture(t)
	for i, c := range domaintest.Cases() {
		t.Run(c.Fact, func(t *testing.T) {
			before, after := netip.AddrFrom4([4]byte{198, 18, byte(i), 1}), netip.AddrFrom4([4]byte{198, 18, byte(i), 2})
			f.apply(t, hostRules(t))
			f.learn(t, c.Wire(), after)
			rules := hostRules(t, allow(c.Pattern))
			f.apply(t, rules)
			f.learn(t, c.Wire(), before)
			for _, a := range []netip.Addr{before, after} {
				if got := f.opens(t, a.String()+":443"); got != c.Match {
					t.Errorf("%s after %s: %s is open: %v, want %v", c.Pattern, c.Name, a, got, c.Match)
				}
			}
			f.apply(t, hostRules(t))
			if f.opens(t, before.String()+":443") || f.opens(t, after.String()+":443") {
				t.Errorf("%s was removed and %s is open", c.Pattern, c.Name)
			}
		})
	}
}

var patternParts = []string{"a", "b", "ab", "ba", "aab", "-", "_", "a1", "xn--a"}

func drawLabels(t *rapid.T, least, most int) []string {
	return rapid.SliceOfN(rapid.SampledFrom(patternParts), least, most).Draw(t, "labels")
}

func drawPattern(t *rapid.T) string {
	base, head := drawLabels(t, 0, 3), drawLabels(t, 0, 2)
	prefix, suffix := rapid.SampledFrom(patternParts).Draw(t, "prefix"), rapid.SampledFrom(append(patternParts, "")).Draw(t, "suffix")
	switch rapid.IntRange(0, 8).Draw(t, "form") {
	case 0:
		return "*"
	case 1, 2:
		return strings.Join(append(base, "a"), ".")
	case 3:
		return strings.Join(append([]string{"*"}, append(base, "b")...), ".")
	case 4:
		return strings.Join(slices.Concat(append(head, "a"), []string{"*"}, base), ".")
	case 5, 6:
		return strings.Join(slices.Concat(head, []string{prefix + "*" + suffix}, base), ".")
	default:
		return strings.Join(slices.Concat([]string{"*"}, head, []string{suffix + "*" + prefix}, base), ".")
	}
}

func drawWire(t *rapid.T) []byte {
	var wire []byte
	labels := drawLabels(t, 0, 6)
	if len(labels) > 0 && rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
		labels[0] = rapid.SampledFrom([]string{"a.b", "*", "\xe9", "a\x00"}).Draw(t, "byte")
	}
	for _, label := range labels {
		if rapid.Bool().Draw(t, "upper") {
			label = strings.ToUpper(label)
		}
		wire = append(append(wire, byte(len(label))), label...)
	}
	return append(wire, 0)
}

// The matcher of patterns, the lowered tables, the mirror and the programs say the same of any patterns
// and any name, over changes of the rules and restarts.
func TestAllJudgesOfNamesAgree(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxMappings = 1 << 16 })
	next := uint32(198<<24 | 18<<16)
	rapid.Check(t, func(r *rapid.T) {
		var lists [][]domain.Pattern
		var texts []string
		for range rapid.IntRange(0, 6).Draw(r, "rules") {
			list := rapid.SliceOfN(rapid.Custom(drawPattern), 1, 4).Draw(r, "patterns")
			texts = append(texts, allow(list...))
			lists = append(lists, nil)
			for _, text := range list {
				lists[len(lists)-1] = append(lists[len(lists)-1], pattern(t, text))
			}
		}
		f.apply(t, hostRules(t, texts...))
		if rapid.IntRange(0, 4).Draw(r, "restart") == 0 {
			f.restart(t)
			f.apply(t, hostRules(t, texts...))
		}
		for range 10 {
			wire := drawWire(r)
			name, err := domain.FromWire(wire)
			if err != nil {
				r.Fatal(err)
			}
			next++
			address := netip.AddrFrom4([4]byte{byte(next >> 24), byte(next >> 16), byte(next >> 8), byte(next)})
			f.learn(t, wire, address)
			var lowered []uint32
			for _, set := range f.lowering.Match(name) {
				lowered = append(lowered, uint32(set))
			}
			kernel, mirror := f.learned(t, address), f.names.matchSets(name, f.active)
			if !slices.Equal(kernel, lowered) || !slices.Equal(mirror, lowered) {
				r.Fatalf("match sets of %s under %v: kernel %v, mirror %v, lowered %v", name, texts, kernel, mirror, lowered)
			}
			want := slices.ContainsFunc(lists, func(list []domain.Pattern) bool {
				return slices.ContainsFunc(list, func(p domain.Pattern) bool { return p.Match(name) })
			})
			if got := f.opens(t, address.String()+":443"); got != want {
				r.Fatalf("%s under %v: open %v, want %v", name, texts, got, want)
			}
		}
	})
}

// A policy that comes after the names were resolved opens those of odd bytes too, and those below no name
// that any policy knows.
func TestGeneralPatternsOpenWhatWasResolvedBefore(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("www.example.org")))
	f.learn(t, []byte("\x02s3\x03a.b\x00"), netip.MustParseAddr("198.51.100.1"))
	f.resolve(t, "s3-eu.unknown.test", 60, "s3-eu.unknown.test. IN CNAME edge.cdn.test.", "edge.cdn.test. IN A 198.51.100.2")
	f.resolve(t, "x.www.example.org", 60, "x.www.example.org. IN A 198.51.100.3")
	for _, step := range []struct {
		patterns []string
		open     string
	}{
		{[]string{"s3-*.unknown.test"}, "2"},
		{[]string{"edge.*"}, "2"},
		{[]string{"*.w*.example.org"}, "3"},
		{[]string{"x.*", "edg*.cdn.test"}, "23"},
		{[]string{"*"}, "123"},
		{[]string{"*.a*"}, ""},
	} {
		for restart := range 2 {
			if restart > 0 {
				f.restart(t)
			}
			f.apply(t, hostRules(t, allow(step.patterns...)))
			open := ""
			for i := range 3 {
				if f.opens(t, fmt.Sprintf("198.51.100.%d:443", i+1)) {
					open += fmt.Sprint(i + 1)
				}
			}
			if open != step.open {
				t.Errorf("%v: open are %q, want %q (restarts: %d)", step.patterns, open, step.open, restart)
			}
		}
	}
}

// As many general patterns as there may be, and one more; then few again, of other bases.
func TestGeneralPatternsAreBounded(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxPatterns = 8192 })
	var spread, list []string
	for i := range ruleset.MaxGeneralPatterns + 1 {
		spread = append(spread, fmt.Sprintf("www.*.n%d.example", i))
	}
	for i := range ruleset.MaxGeneralPatternsOfName + 1 {
		list = append(list, fmt.Sprintf("n%d-*.one.test", i))
	}
	f.apply(t, hostRules(t, allow("s3-*.test")))
	f.resolve(t, "s3-a.test", 60, "s3-a.test. IN A 198.51.100.1")
	for _, step := range []struct {
		fact     string
		patterns []string
		full     bool
	}{
		{"one of all names too many", spread, true},
		{"all of all names", spread[1:], false},
		{"others", append([]string{"s3-*.test"}, spread[:ruleset.MaxGeneralPatterns-1]...), false},
		{"one of a name too many", list, true},
		{"all of a name", list[1:], false},
		{"one of a name above too many", append([]string{"s3-*.test"}, list[1:]...), true},
		{"all of a name, one above", append([]string{"s3-*.test"}, list[2:]...), false},
	} {
		err := f.Apply(t.Context(), hostRules(t, allow(step.patterns...)))
		if step.full != errors.Is(err, enforce.ErrFull) || !step.full && err != nil {
			t.Fatalf("%s: got %v, want ErrFull: %v", step.fact, err, step.full)
		}
	}
	if !f.opens(t, "198.51.100.1:443") {
		t.Error("s3-a.test is not open")
	}
	f.resolve(t, "n64-x.one.test", 60, "n64-x.one.test. IN A 198.51.100.2")
	if !f.opens(t, "198.51.100.2:443") {
		t.Error("the last pattern of a full list does not match")
	}
}
