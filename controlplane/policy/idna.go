package policy

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// withALabels returns the rules with the A-labels of patterns that are written in Unicode, so that what is
// stored and read back says what names are compared with. The rules that were given stay as they are.
func withALabels(rules []*namewardv1.Rule) []*namewardv1.Rule {
	own := false
	for i, rule := range rules {
		if !slices.ContainsFunc(rule.GetDomains(), beyondASCII) {
			continue
		}
		if !own {
			rules, own = slices.Clone(rules), true
		}
		rules[i] = proto.CloneOf(rule)
		for j, text := range rule.GetDomains() {
			if pattern, err := domain.ParsePattern(text); err == nil && beyondASCII(text) {
				rules[i].Domains[j] = pattern.String()
			}
		}
	}
	return rules
}

func beyondASCII(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r > 127 }) >= 0
}
