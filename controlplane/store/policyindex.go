package store

import (
	"maps"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// maxBases is of how many patterns of a policy the bases are indexed. One with more stands in a list that every question by
// name goes through: they are few, and each of their changes would move thousands of entries.
const maxBases = 256

// term is something by which policies are found.
type term struct {
	kind termKind
	text string
}

type termKind uint8

const (
	// termBase is a base of one of their patterns: what names that the pattern matches end with.
	termBase termKind = iota
	// termWide is that they have more patterns than maxBases.
	termWide
	// termDomainSet is a domain set that they name.
	termDomainSet
	// termLabel is one label that their node selector asks for; no text for a selector that asks for nothing.
	termLabel
	termMode
)

// policyIndex leads from terms to the names of policies, in order. It stands beside the tables, as an index of theirs
// would cost a multiple of it with each change and in memory. Lists are handed out: what is in them is not changed, and
// only behind the last of them is anything added in place. Its methods are called under Store.mu.
type policyIndex map[term][]string

// newPolicyIndex makes the index of policies that are in order of their names.
func newPolicyIndex(policies []*policy.Policy) policyIndex {
	index := policyIndex{}
	for _, p := range policies {
		for _, t := range termsOf(p) {
			index.add(t, p.Name)
		}
	}
	return index
}

// replace has one policy in place of another of the same name; nil for none.
func (x policyIndex) replace(before, after *policy.Policy) {
	was, is := termsOf(before), termsOf(after)
	for _, t := range was {
		if !slices.Contains(is, t) {
			x.remove(t, before.Name)
		}
	}
	for _, t := range is {
		x.add(t, after.Name)
	}
}

func (x policyIndex) add(t term, name string) {
	list := x[t]
	if n := len(list); n == 0 || list[n-1] < name {
		x[t] = append(list, name)
		return
	}
	at, found := slices.BinarySearch(list, name)
	if found {
		return
	}
	next := make([]string, 0, len(list)+1+len(list)/4)
	x[t] = append(append(append(next, list[:at]...), name), list[at:]...)
}

func (x policyIndex) remove(t term, name string) {
	list := x[t]
	at, found := slices.BinarySearch(list, name)
	switch {
	case !found:
	case len(list) == 1:
		delete(x, t)
	default:
		x[t] = append(append(make([]string, 0, len(list)), list[:at]...), list[at+1:]...)
	}
}

// termsOf returns the terms of a policy, some perhaps twice; none for nil.
func termsOf(p *policy.Policy) []term {
	if p == nil {
		return nil
	}
	bases := 0
	for _, rule := range p.Rules.Rules {
		bases += len(rule.Domains)
	}
	terms := make([]term, 0, min(bases, maxBases)+4)
	if bases > maxBases {
		terms = append(terms, term{kind: termWide})
	}
	for _, rule := range p.Rules.Rules {
		for _, set := range rule.DomainSets {
			terms = append(terms, term{termDomainSet, set})
		}
		if bases > maxBases {
			continue
		}
		for _, pattern := range rule.Domains {
			terms = append(terms, term{termBase, pattern.Base().String()})
		}
	}
	return append(terms, term{termLabel, selectorLabel(p.Selector)}, modeTerm(p.Rules.Mode))
}

// selectorLabel returns the one label of a selector by which its policy is found: a node without it is not selected.
func selectorLabel(selector map[string]string) string {
	if len(selector) == 0 {
		return ""
	}
	key := slices.Min(slices.Collect(maps.Keys(selector)))
	return labelText(key, selector[key])
}

func labelText(key, value string) string { return key + "\x00" + value }

// ofName returns the lists that together have every policy with a pattern that matches a name, in its rules or in one
// of these domain sets.
func (x policyIndex) ofName(name domain.Name, matching map[string]bool) [][]string {
	lists := [][]string{x[term{kind: termWide}], x[term{termBase, "."}]}
	for suffix, more := name.String(), true; more; _, suffix, more = strings.Cut(suffix, ".") {
		lists = append(lists, x[term{termBase, suffix}])
	}
	for set := range matching {
		lists = append(lists, x[term{termDomainSet, set}])
	}
	return lists
}

// ofLabels returns the lists that together have every policy that selects a node with these labels.
func (x policyIndex) ofLabels(labels map[string]string) [][]string {
	lists := [][]string{x[term{kind: termLabel}]}
	for key, value := range labels {
		lists = append(lists, x[term{termLabel, labelText(key, value)}])
	}
	return lists
}

func modeTerm(mode ruleset.Mode) term { return term{termMode, mode.ToProto().String()} }

// room is how many names are in lists.
func room(lists [][]string) (n int) {
	for _, list := range lists {
		n += len(list)
	}
	return n
}

// merged goes through the names of lists behind one, in order, each once.
func merged(lists [][]string, after string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		rest := make([][]string, 0, len(lists))
		for _, list := range lists {
			at, found := slices.BinarySearch(list, after)
			if found {
				at++
			}
			if at < len(list) {
				rest = append(rest, list[at:])
			}
		}
		for len(rest) > 0 {
			next := rest[0][0]
			for _, list := range rest[1:] {
				next = min(next, list[0])
			}
			for i := 0; i < len(rest); i++ {
				if rest[i][0] != next {
					continue
				}
				if rest[i] = rest[i][1:]; len(rest[i]) == 0 {
					rest = slices.Delete(rest, i, i+1)
					i--
				}
			}
			if !yield(next) {
				return
			}
		}
	}
}
