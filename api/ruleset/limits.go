package ruleset

// What a node holds of general patterns: those with a `*` elsewhere than in a leading `*.`, but for `*`
// itself. The policy server refuses policies that would go beyond it.
const (
	// MaxGeneralPatterns bounds the distinct ones of a rule set.
	MaxGeneralPatterns = 4096
	// MaxGeneralPatternsOfName bounds those that any one name has to be held against: the patterns whose
	// labels behind the `*` are the name's last ones.
	MaxGeneralPatternsOfName = 64
)
