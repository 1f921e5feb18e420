package domain

import (
	"errors"
	"fmt"
	"strings"
)

// ErrBadPattern is wrapped by every error of ParsePattern.
var ErrBadPattern = errors.New("not a domain pattern")

// Pattern selects domain names: `api.example.com` that name alone, `*.example.com` every name below
// example.com and not example.com itself. Patterns are comparable. The zero Pattern matches nothing.
type Pattern struct {
	base     Name
	wildcard bool
}

// ParsePattern reads a pattern, in any letter case, with or without the final dot.
func ParsePattern(s string) (Pattern, error) {
	rest, wildcard := strings.CutPrefix(s, "*.")
	if strings.Contains(rest, "*") {
		return Pattern{}, fmt.Errorf("%w: %q: a `*` elsewhere than in a leading `*.` is not supported by this version", ErrBadPattern, s)
	}
	base, err := ParseName(rest)
	if err != nil {
		return Pattern{}, fmt.Errorf("%w: %w", ErrBadPattern, err)
	}
	if wildcard && len(base.text)+2+2 > maxWire {
		return Pattern{}, fmt.Errorf("%w: %q leaves no room for a label", ErrBadPattern, s)
	}
	return Pattern{base, wildcard}, nil
}

// String returns the canonical form; empty for the zero Pattern.
func (p Pattern) String() string {
	if p.wildcard {
		return "*." + p.base.text
	}
	return p.base.text
}

// Base returns the name behind the `*.`, or the whole name.
func (p Pattern) Base() Name { return p.base }

// Wildcard reports whether p matches the names below its base, rather than the base.
func (p Pattern) Wildcard() bool { return p.wildcard }

// Match reports whether p selects n.
func (p Pattern) Match(n Name) bool {
	if !n.Plain() {
		return false
	}
	if !p.wildcard {
		return n == p.base
	}
	head, below := strings.CutSuffix(n.text, p.base.text)
	return below && len(head) > 1 && head[len(head)-1] == '.'
}
