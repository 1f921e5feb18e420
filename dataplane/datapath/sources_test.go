package datapath

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/lower"
)

// selects is a policy for these sources, which may go to one address alone.
func selects(t testing.TB, name, destination string, sources ...string) string {
	t.Helper()
	list, err := json.Marshal(sources)
	if err != nil {
		t.Fatal(err)
	}
	return `{"name": "policies/` + name + `", "mode": "ENFORCE", "established": "CUT", "workloads": [{"cidrs": ` + string(list) +
		`}], "rules": [{"action": "ALLOW", "cidrs": ["` + destination + `"]}]}`
}

// Whichever way a generation finds its sources, and the one before did, the same connections pass; also after a
// restart.
func TestSourcesInEitherWay(t *testing.T) {
	f := newFixture(t)
	all, net := selects(t, "all", "198.51.100.1", "10.0.0.0/8", "fd00::/8"), selects(t, "net", "198.51.100.2", "10.7.0.0/16", "10.7.9.0/24")
	// A policy of many lengths: the shortest of all is 10.0.0.0/8, which is in the trie then.
	many := selects(t, "many", "198.51.100.3", "172.16.0.0/12", "172.16.0.0/13", "172.16.0.0/14", "172.16.0.0/15", "172.16.0.0/17", "172.16.0.0/18", "172.16.0.0/19")
	everything := selects(t, "everything", "198.51.100.4", "::/0")
	few, nested := policies(t, all, net), policies(t, all, net, many)
	apart, nestedApart := policies(t, all, net, everything), policies(t, all, net, many, everything)
	six := policies(t, all, net, everything, selects(t, "six", "198.51.100.5", "fd00::/16", "fd00::/24", "fd00::/32", "fd00::/40", "fd00::/48", "fd00::/56"))
	for i, rules := range []*ruleset.RuleSet{few, nested, nested, few, apart, nestedApart, few, six, nestedApart, six, apart, nested} {
		f.apply(t, rules)
		if i == 5 {
			f.restart(t)
		}
		f.wantSources(t, rules == nested || rules == nestedApart || rules == six)
		for _, c := range []struct {
			from, to string
			passes   bool
		}{
			{"10.6.0.1", "198.51.100.1", true},
			{"10.6.0.1", "198.51.100.2", false},
			{"10.7.8.1", "198.51.100.1", true},
			{"10.7.8.1", "198.51.100.2", true},
			{"10.7.9.1", "198.51.100.2", true},
			{"10.7.9.1", "198.51.100.3", false},
			{"11.0.0.1", "198.51.100.3", true}, // of no policy, that of IPv6 included
			{"172.16.0.1", "198.51.100.1", rules != nested && rules != nestedApart},
			{"172.31.255.255", "198.51.100.1", rules != nested && rules != nestedApart},
			{"172.16.0.1", "198.51.100.3", true},
		} {
			if got := f.forwards(t, c.from, c.to); got != c.passes {
				t.Errorf("rule set %d: from %s to %s: passes %v, want %v", i, c.from, c.to, got, c.passes)
			}
		}
	}
}

// wantSources checks by which way sources are found, and that the maps are read back as they were written.
func (f *fixture) wantSources(t testing.TB, trie bool) {
	t.Helper()
	got, err := f.kernel.readGeneration(f.active)
	if err != nil {
		t.Fatal(err)
	}
	if inTrie := len(got.sources) > 0; inTrie != trie || len(got.hosts) == 0 {
		t.Errorf("%d sources in the trie and %d cells, want the trie: %v", len(got.sources), len(got.hosts), trie)
	}
	if want := f.held[f.active]; want != nil && got.flags != want.flags {
		t.Errorf("flags read back are %+v, want %+v", got.flags, want.flags)
	}
}

// What is shorter than the longest lengths of a family is in the trie, and what keeps IPv4 apart there with it.
func TestShortestSourcesAreInTheTrie(t *testing.T) {
	classes := func(texts ...string) (list []lower.PrefixClass) {
		for _, text := range texts {
			list = append(list, lower.PrefixClass{Prefix: netip.MustParsePrefix(text), Class: 1})
		}
		return list
	}
	six := classes("fd00::1/128", "fd00::/96", "fd00::/64", "fd00::/56", "fd00::/48", "fd00::/40", "fd00:1::/40", "fd00::/32")
	four := classes("::ffff:10.0.0.0/104", "::ffff:10.0.0.1/128")
	short := classes("fd00::/8", "::/0")
	apart := lower.PrefixClass{Prefix: netip.MustParsePrefix("::ffff:0:0/96")}
	for _, c := range []struct{ all, hosts, trie []lower.PrefixClass }{
		{slices.Concat(six, four), slices.Concat(six, four), nil},
		{append(slices.Concat(four), apart), four, nil},
		{append(slices.Concat(short, four, six), apart), slices.Concat(four, six), append(slices.Concat(short), apart)},
	} {
		if hosts, trie := splitSources(c.all, bpf.MostLengths); !slices.Equal(hosts, c.hosts) || !slices.Equal(trie, c.trie) {
			t.Errorf("%v: in hosts %v, in the trie %v, want %v and %v", c.all, hosts, trie, c.hosts, c.trie)
		}
	}
}

func prefixesOf(count, bits int) (classes []lower.PrefixClass) {
	six := netip.MustParseAddr("fd00::").As16()
	for i := range count {
		six[2], six[3], six[4] = byte(i>>16), byte(i>>8), byte(i)
		classes = append(classes, lower.PrefixClass{Prefix: netip.PrefixFrom(netip.AddrFrom16(six), bits), Class: 1})
	}
	return classes
}

// Where hosts has no room for all, prefixes are in the trie, which takes as many as before; without room for whole
// addresses alone the rule set is refused.
func TestSourcesWithoutRoom(t *testing.T) {
	const both = bpf.DatapathGenerationFlagGENERATION_HOSTS | bpf.DatapathGenerationFlagGENERATION_SOURCES
	limit := int(bpf.DatapathHostLimitHOST_CELLS)
	for _, c := range []struct {
		whole, prefixes int
		want            bpf.DatapathGenerationFlag
	}{
		{limit / 2, limit / 2, bpf.DatapathGenerationFlagGENERATION_HOSTS},
		{0, limit, bpf.DatapathGenerationFlagGENERATION_HOSTS},
		{limit, 0, bpf.DatapathGenerationFlagGENERATION_HOSTS},
		{limit, limit, both},
	} {
		tables := &lower.Tables{Sources: append(prefixesOf(c.whole, 128), prefixesOf(c.prefixes, 64)...)}
		g, err := layOut(tables, 1, 7)
		if err != nil {
			t.Fatalf("%d whole addresses and %d prefixes: %v", c.whole, c.prefixes, err)
		}
		if got := g.flags.Flags & both; got != c.want {
			t.Errorf("%d whole addresses and %d prefixes: flags %b, want %b", c.whole, c.prefixes, got, c.want)
		}
		if c.want == both && len(g.sources) != c.prefixes {
			t.Errorf("%d whole addresses and %d prefixes: %d are in the trie", c.whole, c.prefixes, len(g.sources))
		}
	}
	if _, err := layOut(&lower.Tables{Sources: prefixesOf(3*limit, 128)}, 1, 7); !errors.Is(err, enforce.ErrFull) || !strings.Contains(err.Error(), "cells") {
		t.Errorf("too many whole addresses: %v", err)
	}
}
