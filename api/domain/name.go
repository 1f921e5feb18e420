// Package domain gives domain names and domain patterns their one meaning: how they are written, what
// their canonical form is, and which name a pattern matches. Compiler, agent, BPF tests and command
// line all judge by it.
package domain

import (
	"errors"
	"fmt"
	"strings"
)

const (
	maxLabel = 63  // bytes of a label (RFC 1035, 2.3.4)
	maxWire  = 255 // bytes of a name in wire form, root label included
)

// ErrBadName is wrapped by every error of ParseName and FromWire.
var ErrBadName = errors.New("not a domain name")

// Name is a domain name in canonical form: lower case, without the final dot; bytes that are not
// printable, dots inside a label and backslashes are escaped as in a zone file (RFC 1035, 5.1). Names
// are comparable. The zero Name is none; the root is ".".
type Name struct {
	text string
}

// ParseName reads a name as people write it: labels of letters, digits, `_` and `-`, in any case, with
// or without the final dot.
func ParseName(s string) (Name, error) {
	text := strings.TrimSuffix(s, ".")
	if text == "" {
		return Name{}, fmt.Errorf("%w: %q is empty", ErrBadName, s)
	}
	if len(text)+2 > maxWire {
		return Name{}, fmt.Errorf("%w: %q has more than %d bytes", ErrBadName, s, maxWire-2)
	}
	for label := range strings.SplitSeq(text, ".") {
		if err := checkLabel(label); err != nil {
			return Name{}, fmt.Errorf("%w: %q: %w", ErrBadName, s, err)
		}
	}
	return Name{lower(text)}, nil
}

// FromWire reads an uncompressed name in wire form, of any bytes, up to and with its root label. Bytes
// behind it are an error.
func FromWire(wire []byte) (Name, error) {
	if len(wire) > maxWire {
		return Name{}, fmt.Errorf("%w: %d bytes are more than %d", ErrBadName, len(wire), maxWire)
	}
	var text strings.Builder
	for at := 0; at < len(wire); {
		length := int(wire[at])
		at++
		switch {
		case length == 0 && at != len(wire):
			return Name{}, fmt.Errorf("%w: bytes behind the root label", ErrBadName)
		case length == 0 && text.Len() == 0:
			return Name{"."}, nil
		case length == 0:
			return Name{text.String()}, nil
		case length > maxLabel || at+length > len(wire):
			return Name{}, fmt.Errorf("%w: label of %d bytes at byte %d", ErrBadName, length, at-1)
		}
		if text.Len() > 0 {
			text.WriteByte('.')
		}
		for _, b := range wire[at : at+length] {
			writeEscaped(&text, b)
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
func (n Name) Wire() []byte {
	if n.text == "" || n.text == "." {
		return []byte{0}
	}
	wire := make([]byte, 1, len(n.text)+2)
	start := 0
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

func checkLabel(label string) error {
	if label == "" {
		return errors.New("a label is empty")
	}
	if len(label) > maxLabel {
		return fmt.Errorf("label %q has more than %d bytes", label, maxLabel)
	}
	for _, r := range label {
		if r > 127 {
			return fmt.Errorf("internationalised label %q is not supported by this version: write it as an A-label", label)
		}
		if !plain(byte(r)) && (r < 'A' || r > 'Z') {
			return fmt.Errorf("%q is no letter, digit, hyphen or underscore", r)
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

func writeEscaped(text *strings.Builder, b byte) {
	if b >= 'A' && b <= 'Z' {
		b += 'a' - 'A'
	}
	switch {
	case b == '.' || b == '\\':
		text.WriteByte('\\')
		text.WriteByte(b)
	case b <= ' ' || b >= 127:
		fmt.Fprintf(text, "\\%03d", b)
	default:
		text.WriteByte(b)
	}
}
