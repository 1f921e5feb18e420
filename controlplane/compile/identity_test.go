package compile_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
)

// manyPolicies are more than the places that an identity marks are apart, several times.
func manyPolicies(t *testing.T) []*policy.Policy {
	t.Helper()
	var policies []*policy.Policy
	for i := range 3000 {
		policies = append(policies, numbered(t, i, 0))
	}
	return policies
}

// numbered returns a version of the policy of a number, in whose order they are evaluated.
func numbered(t *testing.T, number, version int) *policy.Policy {
	t.Helper()
	return parsed(t, &namewardv1.Policy{
		Name:  fmt.Sprintf("policies/p%05d", number),
		Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: []string{fmt.Sprintf("v%d.example", version)}}},
	})
}

// An identity that is made of the one before is that of the rules, whatever was changed, and where.
func TestAnIdentityIsThatOfTheRules(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // repeatable
	policies := manyPolicies(t)
	sets := []*policy.DomainSet{domainSet(t, "s", texts(3, "h%d.s.example"))}
	var before *compile.Identity
	for step := range 40 {
		switch at := random.IntN(len(policies)); step % 5 {
		case 0: // nothing
		case 1, 2:
			var number int
			if _, err := fmt.Sscanf(policies[at].Name, "policies/p%05d", &number); err != nil {
				t.Fatal(err)
			}
			policies = slices.Clone(policies)
			policies[at] = numbered(t, number, step)
		case 3:
			sets = []*policy.DomainSet{domainSet(t, "s", texts(step, "h%d.s.example"))}
		case 4:
			// One goes, and one comes behind it: as many, at other places.
			policies = append(slices.Delete(slices.Clone(policies), at, at+1), numbered(t, 3000+step, 0))
		}
		if step == 20 {
			policies = policies[:len(policies)-1]
		}
		next, err := compile.Identify(policies, sets, before)
		if err != nil {
			t.Fatal(err)
		}
		if want := compile.Rules(policies, sets).ID(); next.ID != want {
			t.Fatalf("step %d: got %s, want %s", step, next.ID, want)
		}
		before = next
	}
}

// What two rule sets share is not gone through again: all policies where a domain set changed, and those before the one
// that did.
func TestAnIdentityIsMadeOfTheOneBefore(t *testing.T) {
	policies := manyPolicies(t)
	set := func(domains int) []*policy.DomainSet {
		return []*policy.DomainSet{domainSet(t, "s", texts(domains, "h%d.s.example"))}
	}
	before, err := compile.Identify(policies, set(1), nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := slices.Clone(policies)
	changed[2500] = numbered(t, 2500, 1)
	wantOfSet, wantOfPolicy := compile.Rules(policies, set(2)).ID(), compile.Rules(changed, set(1)).ID()
	// Whoever looks at it now gets another id.
	policies[10].Canonical = nil
	for what, test := range map[string]struct {
		policies []*policy.Policy
		sets     []*policy.DomainSet
		want     string
	}{
		"a domain set":                     {policies, set(2), wantOfSet.String()},
		"a domain set, of policies anew":   {slices.Clone(policies), set(2), wantOfSet.String()},
		"a policy behind the first places": {changed, set(1), wantOfPolicy.String()},
	} {
		next, err := compile.Identify(test.policies, test.sets, before)
		if err != nil {
			t.Fatal(err)
		}
		if next.ID.String() != test.want {
			t.Errorf("%s changed: got %s, want %s", what, next.ID, test.want)
		}
	}
}
