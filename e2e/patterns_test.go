package e2e_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// TestPatterns: each form of pattern opens what it should and nothing else, names that were resolved before
// the policy came and names that are resolved under it.
func TestPatterns(t *testing.T) {
	f := newFleet(t)
	for i, form := range []struct {
		pattern string // in which D stands for the domain
		opens   []string
	}{
		{"D", []string{""}},
		{"S3-EU.D.", []string{"s3-eu"}},
		{"-a-_b-.D", []string{"-a-_b-"}},
		{"*.D", []string{"www", "www.a", "www.a.b", "x.www.a", "s3-", "s3-eu", "s3-a.b", "x.s3-eu", "x.y.s3-eu", "s4-eu", "-a-_b-", "xn--bcher-kva"}},
		{"*.s3-eu.D", []string{"x.s3-eu", "x.y.s3-eu"}},
		{"www.*.D", []string{"www.a", "www.a.b"}},
		{"www.*.example", []string{"www", "www.a", "www.a.b"}},
		{"www.*", []string{"www", "www.a", "www.a.b"}},
		{"s3-*.D", []string{"s3-", "s3-eu"}},
		{"s*-eu.D", []string{"s3-eu", "s4-eu"}},
		{"*b-.D", []string{"-a-_b-"}},
		{"x.s3-*.D", []string{"x.s3-eu"}},
		{"*.s3-*.D", []string{"x.s3-eu", "x.y.s3-eu"}},
		{"b\u00fccher.D", []string{"xn--bcher-kva"}},
		{"*", lab.ShapedNames()},
	} {
		pattern := strings.ReplaceAll(form.pattern, "D", lab.ShapedDomain(i))
		expect := func(address netip.Addr, shape, when string) {
			t.Helper()
			err := f.Connect(address, lab.ServicePort)
			switch opens := slices.Contains(form.opens, shape); {
			case opens && err != nil:
				t.Errorf("%s: %q, resolved %s the policy: %v", form.pattern, shape, when, err)
			case !opens && !lab.Refused(err):
				t.Errorf("%s: %q, resolved %s the policy: got %v, want refused", form.pattern, shape, when, err)
			}
		}
		f.put(clientPolicy("nothing.test"))
		before := map[string]netip.Addr{}
		for _, shape := range lab.ShapedNames() {
			before[shape] = f.learn(t, lab.ResolverV6, lab.ShapedName(i, shape))
		}
		if err := f.Connect(before["s3-eu"], lab.ServicePort); !lab.Refused(err) {
			t.Errorf("%s: under another policy: got %v, want refused", form.pattern, err)
		}
		f.put(clientPolicy(pattern))
		for _, shape := range lab.ShapedNames() {
			expect(before[shape], shape, "before")
			expect(f.learn(t, lab.ResolverV4, lab.ShapedName(i, shape)), shape, "under")
		}
	}
}
