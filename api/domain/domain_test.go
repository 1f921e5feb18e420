package domain_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/domain/domaintest"
)

func TestMatch(t *testing.T) {
	for _, c := range domaintest.Cases() {
		t.Run(c.Fact, func(t *testing.T) {
			pattern, err := domain.ParsePattern(c.Pattern)
			if err != nil {
				t.Fatal(err)
			}
			name, err := domain.FromWire(c.Wire())
			if err != nil {
				t.Fatal(err)
			}
			if got := pattern.Match(name); got != c.Match {
				t.Errorf("%s matches %s: got %v, want %v", pattern, name, got, c.Match)
			}
		})
	}
}

func TestParsePatternRefuses(t *testing.T) {
	for _, s := range []string{
		"", ".", "*", "*.", "a..b", ".a", "a b.com", "www.*.com", "s3-*.amazonaws.com", "*.*.com", "a/b.com",
		"caf\u00e9.example", "\\046.example", strings.Repeat("a", 64) + ".com", strings.Repeat("a.", 127) + "com",
		"*." + strings.Repeat("a.", 125) + "com",
	} {
		if got, err := domain.ParsePattern(s); !errors.Is(err, domain.ErrBadPattern) {
			t.Errorf("ParsePattern(%q): got %v, %v, want ErrBadPattern", s, got, err)
		}
	}
}

// What the fault says must hold for the pattern: the `*` of `*` is the whole first label.
func TestParsePatternNamesTheFault(t *testing.T) {
	for _, s := range []string{"*", "www.*.com", "s3-*.amazonaws.com", "*.*.com"} {
		_, err := domain.ParsePattern(s)
		if err == nil || !strings.Contains(err.Error(), "elsewhere than in a leading `*.` is not supported") {
			t.Errorf("ParsePattern(%q): got %v, want what is not supported", s, err)
		}
	}
}

func TestNameEscapes(t *testing.T) {
	wire := append([]byte{5, 'a', '.', '\\', 0, 0xe9}, 3, 'C', 'o', 'm', 0)
	name, err := domain.FromWire(wire)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := name.String(), `a\.\\\000\233.com`; got != want {
		t.Errorf("String: got %s, want %s", got, want)
	}
	if got, want := name.Wire(), bytes.ToLower(wire[6:]); !bytes.Equal(got, append(wire[:6:6], want...)) {
		t.Errorf("Wire: got %x, want %x, %x", got, wire[:6], want)
	}
}

func FuzzFromWire(f *testing.F) {
	f.Add([]byte{3, 'w', 'w', 'w', 3, 'c', 'o', 'm', 0})
	f.Add([]byte{1, '.', 2, '\\', 0xff, 0})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, wire []byte) {
		name, err := domain.FromWire(wire)
		if err != nil {
			return
		}
		again, err := domain.FromWire(name.Wire())
		if err != nil || again != name {
			t.Errorf("wire form of %q (%x): got %q, %v", name, wire, again, err)
		}
	})
}

func FuzzParsePattern(f *testing.F) {
	f.Add("*.example.com")
	f.Add("API.example.com.")
	f.Fuzz(func(t *testing.T, s string) {
		pattern, err := domain.ParsePattern(s)
		if err != nil {
			return
		}
		again, err := domain.ParsePattern(pattern.String())
		if err != nil || again != pattern {
			t.Errorf("canonical form of %q: got %v, %v, want %v", s, again, err, pattern)
		}
		if name := pattern.Base(); !pattern.Wildcard() && !pattern.Match(name) {
			t.Errorf("%v does not match its own name", pattern)
		}
	})
}
