package bpf_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
)

const (
	labelsForm = bpf.DatapathGeneralFormGENERAL_LABELS
	withinForm = bpf.DatapathGeneralFormGENERAL_WITHIN
	everySet   = 105 // *
	wwwSet     = 106 // www.*
	nSet       = 107 // n*.example.com
)

// layGeneral adds `*`, `www.*` and `n*.example.com` to the patterns of an exchange.
func layGeneral(e *exchange) {
	e.t.Helper()
	e.Every(0, everySet)
	e.General(0, 9, bpf.DatapathGeneralPattern{MatchSet: wwwSet, Form: labelsForm}, "www", "", "", "")
	e.General(0, 4, bpf.DatapathGeneralPattern{MatchSet: nSet, Form: withinForm, Next: 9}, "", "n", "", "example.com")
	e.Pattern(0, "api.example.com", apiSet, belowSet)
	for name, list := range map[string]uint16{"": 9, "cdn.test": 9, "example.com": 4, "api.example.com": 4} {
		e.List(0, name, list)
	}
}

func TestMatchSetsOfAName(t *testing.T) {
	e := newExchange(t)
	layGeneral(e)
	for name, want := range map[string]map[uint32]bool{
		"api.example.com":     {everySet: true, apiSet: true}, // has all that match in its set
		"n1.example.com":      {everySet: true, belowSet: true, nSet: true},
		"www.x.example.com":   {everySet: true, belowSet: true, wwwSet: true},
		"www.n1.example.com":  {everySet: true, belowSet: true, wwwSet: true},
		"www.api.example.com": {everySet: true, belowSet: true, wwwSet: true},
		"www.cdn.test":        {everySet: true, cdnSet: true, wwwSet: true},
		"www.unknown":         {everySet: true, wwwSet: true}, // the list of the generation
		"n1.unknown":          {everySet: true},
		"www":                 {everySet: true},
		"www.caf\\233.test":   {everySet: true},
		".":                   {everySet: true},
	} {
		e.reset(t)
		counted := e.resolve(name, dns.Fqdn(name)+" 60 IN A 192.0.2.1")
		if diff := cmp.Diff(want, e.sets("192.0.2.1")); diff != "" {
			t.Errorf("%s: match sets (-want +got):\n%s", name, diff)
		}
		if counted[bpf.DatapathCounterCOUNTER_LEARNED] != 1 {
			t.Errorf("%s: counted %v", name, counted)
		}
	}
}

// Addresses belong to the names before them on the chain, and so have the match sets of these.
func TestMatchSetsOfAChain(t *testing.T) {
	e := newExchange(t)
	layGeneral(e)
	e.resolve("n1.example.com", "n1.example.com. 60 IN A 192.0.2.1", "n1.example.com. 60 IN CNAME www.edge.test.", "www.edge.test. 60 IN A 192.0.2.2")
	first := map[uint32]bool{everySet: true, belowSet: true, nSet: true}
	second := map[uint32]bool{everySet: true, belowSet: true, nSet: true, wwwSet: true}
	for address, want := range map[string]map[uint32]bool{"192.0.2.1": first, "192.0.2.2": second} {
		if diff := cmp.Diff(want, e.sets(address)); diff != "" {
			t.Errorf("%s: match sets (-want +got):\n%s", address, diff)
		}
	}
}

// Each generation has its own lists; those of the one that is not learned for do not count.
func TestGenerationsHaveTheirOwnLists(t *testing.T) {
	e := newExchange(t)
	layGeneral(e)
	e.General(1, 9, bpf.DatapathGeneralPattern{MatchSet: 300, Form: withinForm}, "", "ww", "", "unknown")
	e.List(1, "", 9)
	for _, test := range []struct {
		active, learning uint32
		want             map[uint32]bool
	}{
		{0, 0, map[uint32]bool{everySet: true, wwwSet: true}},
		{1, 1, map[uint32]bool{300: true}},
		{0, 1, map[uint32]bool{everySet: true, wwwSet: true, 300: true}},
	} {
		e.reset(t)
		e.SetState(test.active, test.learning)
		e.resolve("www.unknown", "www.unknown. 60 IN A 192.0.2.1")
		if diff := cmp.Diff(test.want, e.sets("192.0.2.1")); diff != "" {
			t.Errorf("active %d, learning %d: match sets (-want +got):\n%s", test.active, test.learning, diff)
		}
	}
}

// A response whose names have more match sets than there is room for: the others are counted.
func TestMatchSetsOverLimit(t *testing.T) {
	e := newExchange(t)
	const limit, names, each = 256, 5, 64
	records := []string{fmt.Sprintf("x.n%d.test. 60 IN A 192.0.2.1", names-1)}
	for i := range uint32(names) {
		base := fmt.Sprintf("n%d.test", i)
		for j := range uint32(each) {
			place := i*each + j + 1
			pattern := bpf.DatapathGeneralPattern{MatchSet: 1000 + place, Form: withinForm}
			if j < each-1 {
				pattern.Next = uint16(place + 1)
			}
			e.General(0, place, pattern, "", "x", "", base)
		}
		e.List(0, base, uint16(i*each+1))
		if i > 0 {
			records = append(records, fmt.Sprintf("x.n%d.test. 60 IN CNAME x.n%d.test.", i-1, i))
		}
	}
	counted := e.resolve("x.n0.test", records...)
	if counted[bpf.DatapathCounterCOUNTER_LEARNED] != 1 || counted[bpf.DatapathCounterCOUNTER_SETS_OVER_LIMIT] != names*each-limit {
		t.Errorf("counted %v, want %d match sets over the limit", counted, names*each-limit)
	}
	e.Forget(e.Mappings)
	counted = e.resolve("x.n1.test", records...)
	if counted[bpf.DatapathCounterCOUNTER_LEARNED] != 1 || counted[bpf.DatapathCounterCOUNTER_SETS_OVER_LIMIT] != 0 {
		t.Errorf("counted %v, want none over the limit", counted)
	}
}

// A question is held against all match sets of its name.
func TestGeneralPatternsRefuse(t *testing.T) {
	g := newAsker(t, enforced)
	layGeneral(&exchange{Datapath: g.Datapath, t: t})
	question := func(set uint32) bpf.DatapathComponent {
		return component(bpf.DatapathComponentCOMPONENT_QUESTION, set)
	}
	g.rules(question(belowSet), every(5, 0))
	g.rules(question(nSet), every(4, bpf.DatapathVerdictFlagVERDICT_DENY))
	g.rules(question(wwwSet), every(6, bpf.DatapathVerdictFlagVERDICT_DENY))
	g.rules(question(everySet), every(7, 0))
	g.expectUnasked("n1.example.com")
	g.expectAsked("www.example.com")
	g.expectUnasked("www.unknown")
	g.expectAsked("n1.unknown")
	g.rules(question(everySet), every(3, bpf.DatapathVerdictFlagVERDICT_DENY))
	g.expectUnasked("n1.unknown")
	g.expectUnasked("caf\\233.unknown")
}
