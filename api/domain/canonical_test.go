package domain_test

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
)

func TestParseCanonicalReadsWhatStringReturns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		labels := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 1, 20), 0, 8).Draw(t, "labels")
		var wire []byte
		for _, label := range labels {
			wire = append(append(wire, byte(len(label))), label...)
		}
		want, err := domain.FromWire(append(wire, 0))
		if err != nil {
			t.Fatal(err)
		}
		got, err := domain.ParseCanonical(want.String())
		if err != nil || got != want {
			t.Errorf("ParseCanonical(%q) = %q, %v", want, got, err)
		}
	})
}

func TestParseCanonicalRefuses(t *testing.T) {
	for _, text := range []string{"", "A.example", "a..b", "example.com.", `a\`, `a\25`, `a\256b`, `\097`, `a\b`, "a b"} {
		if name, err := domain.ParseCanonical(text); !errors.Is(err, domain.ErrBadName) {
			t.Errorf("ParseCanonical(%q) = %q, %v", text, name, err)
		}
	}
}
