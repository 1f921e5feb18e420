package domain_test

import (
	"bytes"
	"errors"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

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

// Match against a regular expression of the pattern's text.
func TestMatchIsWhatTheTextSays(t *testing.T) {
	label := rapid.StringMatching(`[ab-]{1,3}`)
	rapid.Check(t, func(t *rapid.T) {
		labels := rapid.SliceOfN(label, 1, 4).Draw(t, "labels")
		at := rapid.IntRange(0, len(labels)-1).Draw(t, "at")
		labels[at] = rapid.SampledFrom([]string{"*", labels[at], "*" + labels[at], labels[at] + "*", "a*" + labels[at]}).Draw(t, "star")
		text := strings.Join(labels, ".")
		if len(labels[at]) > 1 && rapid.Bool().Draw(t, "below") {
			text = "*." + text
		}
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		expression := strings.ReplaceAll("."+text+".", ".*.", "((?:.[^.]+)+).")
		expression = strings.ReplaceAll(expression, "*", "[^.]*")
		expression = "^" + strings.ReplaceAll(strings.ReplaceAll(expression, ".", `\.`), `[^\.]`, "[^.]") + "$"
		for range 20 {
			name := strings.Join(rapid.SliceOfN(label, 1, 5).Draw(t, "name"), ".")
			parsed, err := domain.ParseName(name)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := pattern.Match(parsed), regexp.MustCompile(expression).MatchString("."+name+"."); got != want {
				t.Fatalf("%s matches %s: got %v, want %v by %s", text, name, got, want, expression)
			}
		}
	})
}

func TestParsePatternRefuses(t *testing.T) {
	long := strings.Repeat("a", 63)
	for s, reason := range map[string]string{
		"":                     "is empty",
		".":                    "is empty",
		"*.":                   "lacks the name",
		"*..":                  "a label is empty",
		"a..b":                 "a label is empty",
		".a":                   "a label is empty",
		"\u3002a":              "a label is empty",
		"a b.com":              `' ' is no letter`,
		"a/b.com":              `'/' is no letter`,
		"\\046.example":        `'\\' is no letter`,
		"a\x00.example":        "is no letter",
		"**":                   "more than one `*`",
		"*.*":                  "more than one `*`",
		"*.*.com":              "more than one `*`",
		"*.www.*.com":          "more than one `*`",
		"www.*.*.com":          "more than one `*`",
		"*a*.com":              "more than one `*`",
		"a*.*.com":             "more than one `*`",
		"a*.b*.com":            "more than one `*`",
		"*.a*.b*.com":          "more than one `*`",
		"*.a**.com":            "more than one `*`",
		"caf\u00e9*.example":   "beside internationalised characters",
		"\u00e9\u200d.example": "cannot be written as an A-label",
		"\uff0a.example":       "cannot be written as an A-label",
		"\xff.example":         "cannot be written as an A-label",
		"\u00ad.example":       "a label is empty",
		strings.Repeat("\u4f8b", 60) + ".example": "more than 63 bytes",
		long + "a.com":                              "more than 63 bytes",
		long + "*a.com":                             "more than 63 bytes",
		strings.Repeat("a.", 127) + "com":           "more than 253 bytes",
		"*." + strings.Repeat("a.", 125) + "com":    "more than 253 bytes",
		"a.*." + strings.Repeat("a.", 124) + "com":  "more than 253 bytes",
		"*.a*." + strings.Repeat("a.", 124) + "com": "more than 253 bytes",
		"\ufffd.example":                            "cannot be written as an A-label",
		"a*b." + strings.Repeat("a.", 124) + "com":  "more than 253 bytes",
	} {
		got, err := domain.ParsePattern(s)
		if !errors.Is(err, domain.ErrBadPattern) || !strings.Contains(err.Error(), reason) {
			t.Errorf("ParsePattern(%q): got %v, %v, want ErrBadPattern with %q", s, got, err, reason)
		}
	}
}

func TestParsePatternTakesApart(t *testing.T) {
	type parts struct {
		Form                       domain.Form
		Base, Head, Prefix, Suffix string
	}
	for s, want := range map[string]parts{
		"API.example.com.":          {domain.Exact, "api.example.com", "", "", ""},
		"*.Example.com":             {domain.Below, "example.com", "", "", ""},
		"*":                         {domain.Every, ".", "", "", ""},
		"www.*.com":                 {domain.Labels, "com", "www", "", ""},
		"a.b.*":                     {domain.Labels, ".", "a.b", "", ""},
		"s3-*.amazonaws.com":        {domain.Within, "amazonaws.com", "", "s3-", ""},
		"a.b.*c":                    {domain.Within, ".", "a.b", "", "c"},
		"x*":                        {domain.Within, ".", "", "x", ""},
		"*.s3-*-x.amazonaws.com":    {domain.BelowWithin, "amazonaws.com", "", "s3-", "-x"},
		"*.a.b.c*.example":          {domain.BelowWithin, "example", "a.b", "c", ""},
		"*.*c":                      {domain.BelowWithin, ".", "", "", "c"},
		"*.B\u00dccher.example":     {domain.Below, "xn--bcher-kva.example", "", "", ""},
		"www.*.b\u00fccher.example": {domain.Labels, "xn--bcher-kva.example", "www", "", ""},
	} {
		p, err := domain.ParsePattern(s)
		if err != nil {
			t.Errorf("ParsePattern(%q): %v", s, err)
			continue
		}
		got := parts{Form: p.Form(), Base: p.Base().String(), Head: p.Head()}
		got.Prefix, got.Suffix = p.Affixes()
		if got != want {
			t.Errorf("ParsePattern(%q): got %+v, want %+v", s, got, want)
		}
	}
	if p := (domain.Pattern{}); p.String() != "" || p.Form() != domain.NoPattern || !p.Base().IsZero() || p.Match(domain.Name{}) {
		t.Errorf("the zero Pattern: %+v", p)
	}
}

func TestParseNameOfUnicode(t *testing.T) {
	got, err := domain.ParseName("B\u00dccher.\u4f8b\u3048")
	if err != nil || got.String() != "xn--bcher-kva.xn--r8jz45g" {
		t.Errorf("got %v, %v", got, err)
	}
	for _, s := range []string{"*", "*.example.com", "a*.example"} {
		if got, err := domain.ParseName(s); !errors.Is(err, domain.ErrBadName) {
			t.Errorf("ParseName(%q): got %v, %v, want ErrBadName", s, got, err)
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
	for _, c := range domaintest.Cases() {
		f.Add(c.Pattern)
	}
	f.Fuzz(func(t *testing.T, s string) {
		pattern, err := domain.ParsePattern(s)
		if err != nil {
			return
		}
		again, err := domain.ParsePattern(pattern.String())
		if err != nil || again != pattern {
			t.Errorf("canonical form of %q: got %v, %v, want %v", s, again, err, pattern)
		}
		// The shortest name that it may match, and, but for an exact one, another.
		for _, star := range []string{"", "x"} {
			text := strings.Replace(pattern.String(), "*", "y", 1)
			if pattern.Form() == domain.Within {
				text = strings.Replace(pattern.String(), "*", star, 1)
			}
			text = strings.Replace(text, "*", star, 1)
			name, err := domain.ParseName(text)
			if err == nil && !pattern.Match(name) {
				t.Errorf("%v does not match %v", pattern, name)
			}
			if err != nil && star == "" {
				t.Errorf("the shortest name of %v is none: %v", pattern, err)
			}
		}
	})
}
