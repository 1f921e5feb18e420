package datapath

import (
	"testing"
)

// TestReplaces: a switch waits for programs that began before only where a name loses a match set by it.
func TestReplaces(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct {
		fact       string
		first      []string
		second     []string
		want       bool
		moreInNext []string
	}{
		{fact: "nothing changes", first: []string{"a.test"}, second: []string{"a.test"}},
		{fact: "a name joins", first: []string{"a.test"}, second: []string{"a.test", "b.test"}},
		{fact: "the names below one join", first: []string{"a.test"}, second: []string{"a.test", "*.b.test"}},
		{fact: "the names below one that is there join", first: []string{"a.test"}, second: []string{"a.test", "*.a.test"}},
		{fact: "a name joins that matched already", first: []string{"*.test"}, second: []string{"*.test", "a.test"}},
		{fact: "a name above joins", first: []string{"a.b.test"}, second: []string{"a.b.test", "*.test"}},
		{fact: "a general pattern joins", first: []string{"a.test", "x*.test"}, second: []string{"a.test", "x*.test", "y*.other"}},
		{fact: "a list becomes long", first: longList(254), second: longList(258)},
		{fact: "a long list grows", first: longList(longEnough), second: longList(longEnough + 1)},
		{fact: "a name leaves", first: []string{"a.test", "b.test"}, second: []string{"a.test"}, want: true},
		{fact: "a name leaves a long list", first: longList(longEnough, "a.test"), second: longList(longEnough), want: true},
		{fact: "a long list becomes short", first: longList(longEnough), second: longList(3), want: true},
		{fact: "a wildcard leaves", first: []string{"*.a.test", "b.test"}, second: []string{"b.test"}, want: true},
		{fact: "a general pattern leaves", first: []string{"x*.test", "y*.test"}, second: []string{"y*.test"}, want: true},
		{fact: "every name leaves", first: []string{"*", "y.test"}, second: []string{"y.test"}, want: true},
		{fact: "another list has a name too", first: []string{"a.test"}, second: []string{"a.test"}, moreInNext: []string{"a.test", "c.test"}, want: true},
		{fact: "another list has a name below a wildcard", first: []string{"*.test"}, second: []string{"*.test"}, moreInNext: []string{"a.test"}, want: true},
		{fact: "another list has other names", first: []string{"a.test"}, second: []string{"a.test"}, moreInNext: []string{"c.test"}},
	} {
		t.Run(test.fact, func(t *testing.T) {
			f.apply(t, hostRules(t, allow(test.first...)))
			f.apply(t, hostRules(t, allow(test.first...)))
			rules := []string{allow(test.second...)}
			if test.moreInNext != nil {
				rules = append(rules, allow(test.moreInNext...))
			}
			next := hostRules(t, rules...)
			tables, err := f.lowering.Lower(next)
			if err != nil {
				t.Fatal(err)
			}
			f.names.change(tables.Changed)
			idle := 1 - f.active
			if err := f.names.write(idle, f.lowering, tables.Patterns); err != nil {
				t.Fatal(err)
			}
			if got := f.names.replaces(f.active, idle); got != test.want {
				t.Errorf("replaces: got %v, want %v", got, test.want)
			}
		})
	}
}
