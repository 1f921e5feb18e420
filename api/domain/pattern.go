package domain

import (
	"errors"
	"fmt"
	"strings"
)

// ErrBadPattern is wrapped by every error of ParsePattern.
var ErrBadPattern = errors.New("not a domain pattern")

// Pattern selects domain names. Patterns are comparable. The zero Pattern matches nothing.
type Pattern struct {
	text string // canonical
	form Form
	star uint8 // where the `*` is, the last one of BelowWithin
}

// Form says what a pattern's `*` stands for.
type Form uint8

// The forms.
const (
	// NoPattern is that of the zero Pattern.
	NoPattern Form = iota
	// Exact has no `*`: `api.example.com` is that name alone.
	Exact
	// Below is `*.example.com`: one or more whole labels, then the base.
	Below
	// Every is `*`: every name there is.
	Every
	// Labels is `www.*.com`, or `www.*`: the head, one or more whole labels, the base.
	Labels
	// Within is `s3-*.amazonaws.com`: zero or more characters of one label. Labels may stand before it.
	Within
	// BelowWithin is `*.s3-*.amazonaws.com`: one or more whole labels before what Within is.
	BelowWithin
)

// ParsePattern reads a pattern, in any letter case, with or without the final dot. The error does not
// repeat the text.
func ParsePattern(s string) (Pattern, error) {
	p, err := parsePattern(s)
	if err != nil {
		return Pattern{}, fmt.Errorf("%w: %w", ErrBadPattern, err)
	}
	return p, nil
}

func parsePattern(s string) (Pattern, error) {
	text, err := canonical(s, true)
	if err != nil {
		return Pattern{}, err
	}
	if len(text) > maxWire {
		return Pattern{}, errTooLong
	}
	star := strings.IndexByte(text, '*')
	p := Pattern{text: text, star: uint8(max(star, 0))} //nolint:gosec // a name is no longer
	if text == "*" {
		if s != text {
			return Pattern{}, errors.New("lacks the name behind `*.` (for every name write `*`)")
		}
		p.form = Every
		return p, nil
	}
	second := strings.IndexByte(text[star+1:], '*')
	switch {
	case star < 0:
		p.form = Exact
	case second >= 0:
		p.form = BelowWithin
		p.star = uint8(star + 1 + second) //nolint:gosec // as above
		if !strings.HasPrefix(text, "*.") || strings.Contains(text[p.star+1:], "*") || p.wholeLabel() {
			return Pattern{}, errors.New("has more than one `*`: only `*.` and a pattern with one inside a label may have two")
		}
	case !p.wholeLabel():
		p.form = Within
	case star == 0:
		p.form = Below
	default:
		p.form = Labels
	}
	if p.shortest() > maxWire {
		return Pattern{}, errTooLong
	}
	return p, nil
}

// wholeLabel reports whether the `*` is a label of its own.
func (p Pattern) wholeLabel() bool {
	at := int(p.star)
	return (at == 0 || p.text[at-1] == '.') && (at+1 == len(p.text) || p.text[at+1] == '.')
}

// shortest is how many bytes the shortest name that p matches has in wire form.
func (p Pattern) shortest() int {
	length := len(p.text) + 2 // one character in place of each `*`
	if prefix, suffix := p.Affixes(); prefix+suffix != "" {
		length--
	}
	return length
}

// String returns the canonical form; empty for the zero Pattern.
func (p Pattern) String() string { return p.text }

// Form returns what the `*` stands for.
func (p Pattern) Form() Form { return p.form }

// General reports whether names have to be held against the pattern one by one, since none of their
// suffixes alone says that they match.
func (p Pattern) General() bool { return p.form >= Labels }

// Base returns the labels behind that of the `*`, the root if there are none; the whole name of Exact.
func (p Pattern) Base() Name {
	switch {
	case p.form <= Exact:
		return Name{p.text}
	case p.baseAt() > len(p.text):
		return Name{"."}
	default:
		return Name{p.text[p.baseAt():]}
	}
}

// baseAt is where the base begins: behind the text if it is the root.
func (p Pattern) baseAt() int {
	if dot := strings.IndexByte(p.text[p.star:], '.'); dot >= 0 {
		return int(p.star) + dot + 1
	}
	return len(p.text) + 1
}

// Head returns the labels before that of the `*`, of BelowWithin before the second; empty if there are
// none.
func (p Pattern) Head() string {
	head := p.text[:max(p.labelAt()-1, 0)]
	if p.form == BelowWithin {
		return strings.TrimPrefix(strings.TrimPrefix(head, "*"), ".")
	}
	return head
}

// labelAt is where the label of the `*` begins.
func (p Pattern) labelAt() int { return strings.LastIndexByte(p.text[:p.star], '.') + 1 }

// Affixes returns what stands before and behind the `*` in its label. Both are empty unless the form is
// Within or BelowWithin.
func (p Pattern) Affixes() (prefix, suffix string) {
	if p.form <= Exact {
		return "", ""
	}
	return p.text[p.labelAt():p.star], p.text[p.star+1 : p.baseAt()-1]
}

// Match reports whether p selects n.
func (p Pattern) Match(n Name) bool {
	switch p.form {
	case NoPattern:
		return false
	case Exact:
		return n.text == p.text
	case Every:
		return !n.IsZero()
	}
	left, below := n.text, true
	if at := p.baseAt(); at <= len(p.text) {
		left, below = strings.CutSuffix(n.text, p.text[at-1:])
	}
	return below && left != "" && p.matchLeft(left) && n.Plain()
}

// matchLeft holds what a name has left of the base and its dot against the rest of the pattern.
func (p Pattern) matchLeft(left string) bool {
	head := p.Head()
	if p.form == Below || p.form == Labels {
		if head == "" {
			return true
		}
		rest, begins := strings.CutPrefix(left, head)
		return begins && len(rest) > 1 && rest[0] == '.'
	}
	dot := strings.LastIndexByte(left, '.')
	label, before := left[dot+1:], left[:max(dot, 0)]
	prefix, suffix := p.Affixes()
	if len(label) < len(prefix)+len(suffix) || !strings.HasPrefix(label, prefix) || !strings.HasSuffix(label, suffix) {
		return false
	}
	switch {
	case p.form == Within:
		return before == head
	case head == "":
		return before != ""
	default:
		before, ends := strings.CutSuffix(before, head)
		return ends && len(before) > 1 && before[len(before)-1] == '.'
	}
}
