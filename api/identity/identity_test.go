package identity_test

import (
	"crypto/x509"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/nameward/nameward/api/identity"
)

func TestParseID(t *testing.T) {
	for _, s := range []string{"spiffe://nameward/node/web-1.example", "spiffe://example.org/ns/prod/sa/agent", "dns:web-1.example"} {
		id, err := identity.ParseID(s)
		if err != nil || id.String() != s || id.IsZero() {
			t.Errorf("ParseID(%q): got %q, %v", s, id, err)
		}
	}
	for _, s := range []string{
		"", "web-1", "spiffe://", "spiffe://nameward", "spiffe://nameward/", "spiffe://Nameward/node/a", "https://nameward/node/a",
		"spiffe://nameward/node/a/", "spiffe://nameward/node/../admin/a", "spiffe://nameward/node/a?b", "dns:", "dns:*.example", "dns:a.",
	} {
		if id, err := identity.ParseID(s); !errors.Is(err, identity.ErrBadID) || !id.IsZero() {
			t.Errorf("ParseID(%q): got %q, %v, want ErrBadID", s, id, err)
		}
	}
}

func TestIDsAreComparable(t *testing.T) {
	one, _ := identity.ParseID("dns:Web-1.example")
	other, _ := identity.ParseID("dns:web-1.Example")
	if one != other {
		t.Errorf("%q and %q differ by case alone and are not one ID", one, other)
	}
	a, _ := identity.ParseID("spiffe://nameward/node/a")
	b, err := identity.New("nameward", identity.Node, "a")
	if a != b || err != nil {
		t.Errorf("got %q and %q, %v, want one ID", a, b, err)
	}
}

func TestNamed(t *testing.T) {
	for _, c := range []struct {
		id   string
		role identity.Role
		name string
		ok   bool
	}{
		{"spiffe://nameward/node/web-1", identity.Node, "web-1", true},
		{"spiffe://nameward/server/a.example", identity.Server, "a.example", true},
		{"spiffe://nameward/admin/ada", identity.Admin, "ada", true},
		{"spiffe://nameward/editor/ci", identity.Editor, "ci", true},
		{"spiffe://nameward/viewer/wall", identity.Viewer, "wall", true},
		{"dns:web-1.example", identity.Node, "web-1.example", true},
		{"spiffe://nameward/node", "", "", false},
		{"spiffe://nameward/node/a/b", "", "", false},
		{"spiffe://nameward/Node/a", "", "", false},
		{"spiffe://nameward/root/a", "", "", false},
		{"spiffe://nameward/x/node/a", "", "", false},
	} {
		id, err := identity.ParseID(c.id)
		if err != nil {
			t.Fatal(err)
		}
		if role, name, ok := id.Named(); role != c.role || name != c.name || ok != c.ok {
			t.Errorf("%s: got %q %q %v, want %q %q %v", c.id, role, name, ok, c.role, c.name, c.ok)
		}
	}
	if role, name, ok := (identity.ID{}).Named(); ok {
		t.Errorf("nobody: got %q %q", role, name)
	}
}

func TestTrustDomainAndPath(t *testing.T) {
	id, _ := identity.ParseID("spiffe://example.org/ns/prod")
	if id.TrustDomain() != "example.org" || id.Path() != "/ns/prod" {
		t.Errorf("got %q and %q", id.TrustDomain(), id.Path())
	}
	dns, _ := identity.ParseID("dns:a")
	if dns.TrustDomain() != "" || dns.Path() != "" || !dns.DNS() || id.DNS() {
		t.Errorf("a DNS name: got %q and %q", dns.TrustDomain(), dns.Path())
	}
	for _, bad := range []string{"", "Example", "spiffe://example.org", "a/b"} {
		if _, err := identity.ParseTrustDomain(bad); !errors.Is(err, identity.ErrBadID) {
			t.Errorf("trust domain %q: got %v, want ErrBadID", bad, err)
		}
	}
}

func TestParseRole(t *testing.T) {
	for _, role := range identity.Roles() {
		if got, err := identity.ParseRole(string(role)); got != role || err != nil {
			t.Errorf("ParseRole(%q): got %q, %v", role, got, err)
		}
	}
	if _, err := identity.ParseRole("root"); err == nil {
		t.Error("root is a role")
	}
}

func TestFromCertificate(t *testing.T) {
	uris := func(texts ...string) []*url.URL {
		var parsed []*url.URL
		for _, text := range texts {
			uri, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			parsed = append(parsed, uri)
		}
		return parsed
	}
	for name, c := range map[string]struct {
		certificate x509.Certificate
		want, fault string
	}{
		"a SPIFFE ID is whom it speaks for": {x509.Certificate{URIs: uris("spiffe://nameward/node/a")}, "spiffe://nameward/node/a", ""},
		"beside it DNS names say where, not who": {
			x509.Certificate{URIs: uris("spiffe://nameward/server/a"), DNSNames: []string{"a", "localhost"}}, "spiffe://nameward/server/a", "",
		},
		"one DNS name alone speaks for a node": {x509.Certificate{DNSNames: []string{"web-1.example"}}, "dns:web-1.example", ""},
		"two SPIFFE IDs are in doubt":          {x509.Certificate{URIs: uris("spiffe://nameward/node/a", "spiffe://nameward/admin/a")}, "", "2 URIs"},
		"a second URI of any kind is in doubt": {x509.Certificate{URIs: uris("spiffe://nameward/node/a", "https://a")}, "", "2 URIs"},
		"a URI of another kind is no identity": {x509.Certificate{URIs: uris("https://a"), DNSNames: []string{"a"}}, "", "https://a"},
		"two DNS names are in doubt":           {x509.Certificate{DNSNames: []string{"a", "b"}}, "", "2 DNS names: a, b"},
		"a wildcard is nobody":                 {x509.Certificate{DNSNames: []string{"*.example"}}, "", `"*.example"`},
		"a certificate without names":          {x509.Certificate{}, "", "neither"},
		"a CA speaks for nobody":               {x509.Certificate{IsCA: true, URIs: uris("spiffe://nameward/node/a")}, "", "of a CA"},
		"a trust domain is nobody":             {x509.Certificate{URIs: uris("spiffe://nameward")}, "", "nobody in it"},
	} {
		t.Run(name, func(t *testing.T) {
			id, err := identity.FromCertificate(&c.certificate)
			if c.fault == "" {
				if err != nil || id.String() != c.want {
					t.Errorf("got %q, %v, want %q", id, err, c.want)
				}
				return
			}
			if !errors.Is(err, identity.ErrUnnamed) || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("got %q, %v, want ErrUnnamed with %q", id, err, c.fault)
			}
		})
	}
}
