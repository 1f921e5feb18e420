package settings_test

import (
	"testing"

	"github.com/nameward/nameward/cmd/settings"
)

func TestSuggestion(t *testing.T) {
	known := []string{"name", "domains", "domainSets", "cidrs"}
	tests := []struct{ word, want string }{
		{"domain", ` (did you mean "domains"?)`},
		{"cirds", ` (did you mean "cidrs"?)`},
		{"naem", ` (did you mean "name"?)`},
		{"destinations", ""},
		{"", ""},
	}
	for _, test := range tests {
		if got := settings.Suggestion(test.word, known); got != test.want {
			t.Errorf("Suggestion(%q): got %q, want %q", test.word, got, test.want)
		}
	}
}
