package adminserver

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/policy"
)

// checkNames returns a *ruleset.FieldError for each domain that is an address. By its characters it is a pattern, but
// nobody asks for such a name, so that a rule which is to deny the address would deny nothing. It is judged where
// domains come in and nowhere else: what is stored stays readable.
func checkNames(path string, texts []string, first int) error {
	var faults []error
	for i, text := range texts {
		if address, err := netip.ParseAddr(strings.TrimSuffix(text, ".")); err == nil && address.Is4() {
			faults = append(faults, &ruleset.FieldError{
				Field: fmt.Sprintf("%s[%d]", path, first+i), Value: text, Reason: "is an address, which no name matches: that is for the cidrs of a rule",
			})
		}
	}
	return errors.Join(faults...)
}

// checkNamesOf does the same of the rules of a policy, with paths from it.
func checkNamesOf(p *namewardv1.Policy) error {
	var faults []error
	for i, rule := range p.GetRules() {
		faults = append(faults, checkNames(fmt.Sprintf("rules[%d].domains", i), rule.GetDomains(), 0))
	}
	return errors.Join(faults...)
}

// parseDomains reads domains that a set is to have. An error joins a *ruleset.FieldError for every fault.
func parseDomains(texts []string, first int) ([]domain.Pattern, error) {
	domains, err := policy.ParseDomains(texts, first)
	return domains, errors.Join(err, checkNames("domains", texts, first))
}
