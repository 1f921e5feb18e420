// Package domain gives domain names and domain patterns their one meaning: how they are written, what
// their canonical form is, and which name a pattern matches. Compiler, agent, BPF tests and command
// line all judge by it.
package domain

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	maxLabel = 63  // bytes of a label (RFC 1035, 2.3.4)
	maxWire  = 255 // bytes of a name in wire form, root label included
)

// ErrBadName is wrapped by every error of ParseName and FromWire.
var ErrBadName = errors.New("not a domain name")

var errTooLong = fmt.Errorf("has more than %d bytes", maxWire-2)

// Name is a domain name in canonical form: lower case, without the final dot; bytes that are not
// printable, dots inside a label and backslashes are escaped as in a zone file (RFC 1035, 5.1). Names
// are comparable. The zero Name is none; the root is ".".
type Name struct {
	text string
}

// ParseName reads a name as people write it: labels of letters, digits, `_` and `-`, in any case, or of
// Unicode (IDNA2008, lookup), with or without the final dot.
func ParseName(s string) (Name, error) {
	text, err := canonical(s, false)
	if err == nil && len(text)+2 > maxWire {
		err = errTooLong
	}
	if err != nil {
		return Name{}, fmt.Errorf("%w: %q: %w", ErrBadName, s, err)
	}
	return Name{text}, nil
}

// canonical returns a name, or a pattern where stars may stand, in lower case, without the final dot and
// with A-labels for those of Unicode. It says what is wrong with the whole, or with a label.
func canonical(s string, stars bool) (string, error) {
	text := s
	if !isASCII(s) {
		text = ideographicDots.Replace(s)
	}
	text = strings.TrimSuffix(text, ".")
	if text == "" {
		return "", errors.New("is empty")
	}
	labels := strings.Split(text, ".")
	for i, label := range labels {
		var err error
		if labels[i], err = canonicalLabel(label, stars); err != nil {
			return "", err
		}
	}
	return strings.Join(labels, "."), nil
}

func canonicalLabel(label string, stars bool) (string, error) {
	if isASCII(label) {
		return lower(label), checkLabel(label, stars)
	}
	if stars && strings.Contains(label, "*") {
		return "", fmt.Errorf("label %q has a `*` beside internationalised characters: names are compared as A-labels", label)
	}
	ascii, err := idna.Lookup.ToASCII(label)
	if strings.ContainsRune(label, utf8.RuneError) { // which is also what a byte that is no UTF-8 is read as
		err = errors.New("it is not valid UTF-8")
	}
	if err != nil {
		return "", fmt.Errorf("label %q cannot be written as an A-label (%s)", label, strings.TrimPrefix(err.Error(), "idna: "))
	}
	return ascii, checkLabel(ascii, false)
}

// ideographicDots separate labels as the dot does (RFC 5895).
var ideographicDots = strings.NewReplacer("\u3002", ".", "\uff0e", ".", "\uff61", ".")

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] > 127 {
			return false
		}
	}
	return true
}

// FromWire reads an uncompressed name in wire form, of any bytes, up to and with its root label. Bytes
// behind it are an error.
func FromWire(wire []byte) (Name, error) {
	if len(wire) > maxWire {
		return Name{}, fmt.Errorf("%w: %d bytes are more than %d", ErrBadName, len(wire), maxWire)
	}
	text := make([]byte, 0, maxWire) // all it takes, unless bytes are escaped
	for at := 0; at < len(wire); {
		length := int(wire[at])
		at++
		switch {
		case length == 0 && at != len(wire):
			return Name{}, fmt.Errorf("%w: bytes behind the root label", ErrBadName)
		case length == 0 && len(text) == 0:
			return Name{"."}, nil
		case length == 0:
			return Name{string(text)}, nil
		case length > maxLabel || at+length > len(wire):
			return Name{}, fmt.Errorf("%w: label of %d bytes at byte %d", ErrBadName, length, at-1)
		}
		if len(text) > 0 {
			text = append(text, '.')
		}
		for _, b := range wire[at : at+length] {
			text = appendEscaped(text, b)
		}
		at += length
	}
	return Name{}, fmt.Errorf("%w: no root label", ErrBadName)
}

// String returns the canonical form; empty for the zero Name.
func (n Name) String() string { return n.text }

// IsZero reports whether n is no name at all.
func (n Name) IsZero() bool { return n.text == "" }

// Wire returns the name in wire form (RFC 1035, 3.1) with its root label.
func (n Name) Wire() []byte { return n.AppendWire(make([]byte, 0, len(n.text)+2)) }

// AppendWire appends the wire form.
func (n Name) AppendWire(wire []byte) []byte {
	start := len(wire)
	wire = append(wire, 0)
	if n.text == "" || n.text == "." {
		return wire
	}
	for i := 0; i < len(n.text); i++ {
		switch b := n.text[i]; {
		case b == '.':
			wire[start] = byte(len(wire) - start - 1)
			start = len(wire)
			wire = append(wire, 0)
		case b == '\\' && isDigit(n.text[i+1]):
			wire = append(wire, (n.text[i+1]-'0')*100+(n.text[i+2]-'0')*10+n.text[i+3]-'0')
			i += 3
		case b == '\\':
			wire = append(wire, n.text[i+1])
			i++
		default:
			wire = append(wire, b)
		}
	}
	wire[start] = byte(len(wire) - start - 1)
	return append(wire, 0)
}

// IsRoot reports whether n is the root.
func (n Name) IsRoot() bool { return n.text == "." }

// Plain reports whether every label is of letters, digits, `_` and `-` alone. Only a plain name can
// match a pattern that names labels.
func (n Name) Plain() bool {
	for i := range len(n.text) {
		if n.text[i] != '.' && !plain(n.text[i]) {
			return false
		}
	}
	return n.text != "" && n.text != "."
}

// checkLabel checks a label of ASCII.
func checkLabel(label string, stars bool) error {
	if label == "" {
		return errors.New("a label is empty")
	}
	if stars && len(label) > 1 {
		label = strings.Replace(label, "*", "", 1) // it may stand for nothing
	}
	if len(label) > maxLabel {
		return fmt.Errorf("label %q has more than %d bytes", label, maxLabel)
	}
	for i := range len(label) {
		if b := label[i]; !plain(b) && (b < 'A' || b > 'Z') && (b != '*' || !stars) {
			return fmt.Errorf("%q is no letter, digit, hyphen or underscore", b)
		}
	}
	return nil
}

// plain reports whether b may stand in a canonical label unescaped and be matched by a pattern.
func plain(b byte) bool {
	return b >= 'a' && b <= 'z' || isDigit(b) || b == '-' || b == '_'
}

func isDigit(b byte) bool { return b >= '0' && b <= '9' }

// lower folds ASCII letters alone (RFC 4343).
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}

func appendEscaped(text []byte, b byte) []byte {
	if b >= 'A' && b <= 'Z' {
		b += 'a' - 'A'
	}
	switch {
	case b == '.' || b == '\\':
		return append(text, '\\', b)
	case b <= ' ' || b >= 127:
		return fmt.Appendf(text, "\\%03d", b)
	default:
		return append(text, b)
	}
}
