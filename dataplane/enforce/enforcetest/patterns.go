package enforcetest

import (
	"fmt"

	"github.com/nameward/nameward/api/domain"
)

// Patterns returns so many different domain patterns, sorted.
func Patterns(count int) []domain.Pattern {
	patterns := make([]domain.Pattern, 0, count)
	for i := range count {
		pattern, err := domain.ParsePattern(fmt.Sprintf("n%07d.example", i))
		if err != nil {
			panic(err) // the text above is a pattern
		}
		patterns = append(patterns, pattern)
	}
	return patterns
}
