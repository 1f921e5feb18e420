package ruleset

import "github.com/nameward/nameward/api/domain"

// What a node holds of general patterns: those with a `*` elsewhere than in a leading `*.`, but for `*`
// itself. The policy server refuses policies that would go beyond it.
const (
	// MaxGeneralPatterns bounds the distinct ones of a rule set.
	MaxGeneralPatterns = 4096
	// MaxGeneralPatternsOfName bounds those that any one name has to be held against: the patterns whose
	// labels behind the `*` are the name's last ones.
	MaxGeneralPatternsOfName = 64
)

const (
	// roomText is how long a name may be to take no more room on a node than a short one.
	roomText = 39
	// roomMore is the length of the pieces that the rest of it is kept in.
	roomMore = 64
)

// Room returns how much a node needs to hold a pattern, in patterns of common length: 1 when the name, or that
// behind the `*`, has at most 39 characters, and at most 5.
func Room(pattern domain.Pattern) int {
	return 1 + (max(0, len(pattern.Base().String())-roomText)+roomMore-1)/roomMore
}
