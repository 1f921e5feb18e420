package settings

import "fmt"

// Suggestion returns ` (did you mean "…"?)` for the nearest of the known words, or nothing when none
// is as near as a slip of the keyboard. It serves every word that an operator writes, not keys alone.
func Suggestion(word string, known []string) string {
	best, nearest := 3, ""
	for _, candidate := range known {
		if distance := editDistance(word, candidate); distance < best {
			best, nearest = distance, candidate
		}
	}
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", nearest)
}

// editDistance counts the bytes to insert, delete or replace between a and b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
