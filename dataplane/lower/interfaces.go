package lower

import (
	"slices"
	"strings"
)

// Interfaces gives every possible interface its class. The names of interfaces are not known
// beforehand, but which patterns match together is: those that match the longest of them.
type Interfaces struct {
	patterns []string // sorted; the class of a pattern is its place + 1
	members  [][]string
}

type patterns map[string]bool

func newPatterns() patterns { return patterns{} }

func (p patterns) add(pattern string) {
	if pattern != "" {
		p[pattern] = true
	}
}

func (p patterns) classes() Interfaces {
	var in Interfaces
	for pattern := range p {
		in.patterns = append(in.patterns, pattern)
	}
	slices.Sort(in.patterns)
	in.members = make([][]string, len(in.patterns)+1)
	for i, pattern := range in.patterns {
		name := strings.TrimSuffix(pattern, "+")
		for _, other := range in.patterns {
			prefix, any := strings.CutSuffix(other, "+")
			if other == pattern || any && strings.HasPrefix(name, prefix) {
				in.members[i+1] = append(in.members[i+1], other)
			}
		}
	}
	return in
}

// Len returns how many classes there are besides that of none.
func (in *Interfaces) Len() int { return len(in.patterns) }

// Class returns the class of the interface of that name.
func (in *Interfaces) Class(name string) Class {
	if i, found := slices.BinarySearch(in.patterns, name); found {
		return Class(i + 1) //nolint:gosec // bounded by the patterns
	}
	for end := len(name); end >= 0; end-- {
		if i, found := slices.BinarySearch(in.patterns, name[:end]+"+"); found {
			return Class(i + 1) //nolint:gosec // bounded by the patterns
		}
	}
	return 0
}

func (in *Interfaces) has(class Class, pattern string) bool {
	return slices.Contains(in.members[class], pattern)
}
