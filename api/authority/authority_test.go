package authority_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/nameward/nameward/api/authority"
	"github.com/nameward/nameward/api/identity"
)

var moment = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	made, err := authority.New("example.org", moment)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := made.Pair()
	if err != nil {
		t.Fatal(err)
	}
	read, err := authority.Parse(pair)
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// pool returns what a peer trusts.
func pool(t *testing.T, a *authority.Authority) *x509.CertPool {
	t.Helper()
	pair, err := a.Pair()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pair.Certificate)
	return roots
}

func TestIssueServer(t *testing.T) {
	a := newAuthority(t)
	pair, certificate, err := a.Issue(authority.Request{
		Role: identity.Server, Name: "policy.example.org", DNS: []string{"policy"}, IPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")},
	}, moment)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.X509KeyPair(pair.Certificate, pair.Key); err != nil {
		t.Errorf("certificate and key: %v", err)
	}
	for _, host := range []string{"policy.example.org", "policy", "localhost", "127.0.0.1", "::1", "192.0.2.7"} {
		_, err := certificate.Verify(x509.VerifyOptions{
			DNSName: host, Roots: pool(t, a), CurrentTime: moment, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		})
		if err != nil {
			t.Errorf("reached by %s: %v", host, err)
		}
	}
	id, err := identity.FromCertificate(certificate)
	if err != nil || id.String() != "spiffe://example.org/server/policy.example.org" {
		t.Errorf("got %q, %v", id, err)
	}
	if !slices.Contains(certificate.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		t.Error("servers cannot call each other")
	}
	if life := certificate.NotAfter.Sub(moment); life != authority.LeafLifetime {
		t.Errorf("it lives for %v, want %v", life, authority.LeafLifetime)
	}
}

func TestIssueOthersAreNoServers(t *testing.T) {
	a := newAuthority(t)
	for _, role := range []identity.Role{identity.Node, identity.Admin, identity.Editor, identity.Viewer} {
		_, certificate, err := a.Issue(authority.Request{Role: role, Name: "web-1.example.org"}, moment)
		if err != nil {
			t.Fatal(err)
		}
		options := x509.VerifyOptions{Roots: pool(t, a), CurrentTime: moment, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := certificate.Verify(options); err != nil {
			t.Errorf("%s as a client: %v", role, err)
		}
		options.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		if _, err := certificate.Verify(options); err == nil {
			t.Errorf("%s can be a server", role)
		}
		if len(certificate.DNSNames)+len(certificate.IPAddresses) > 0 {
			t.Errorf("%s is reached by %q, %v", role, certificate.DNSNames, certificate.IPAddresses)
		}
	}
}

func TestServerOfAnAddress(t *testing.T) {
	a := newAuthority(t)
	request := authority.Request{Role: identity.Server, Name: "fd00::1"}
	_, certificate, err := a.Issue(request, moment)
	if err != nil {
		t.Fatal(err)
	}
	if err := certificate.VerifyHostname("fd00::1"); err != nil {
		t.Error(err)
	}
	if got := request.FileName(); got != "server-fd00--1" {
		t.Errorf("got file name %q", got)
	}
	if got := certificate.URIs[0].String(); got != "spiffe://example.org/server/fd00--1" {
		t.Errorf("got %q", got)
	}
}

func TestRefused(t *testing.T) {
	a := newAuthority(t)
	for fault, request := range map[string]authority.Request{
		"none of the roles":       {Role: "root", Name: "a"},
		"not a node id":           {Role: identity.Node, Name: "a/b"},
		"no name":                 {Role: identity.Admin, Name: "a/b"},
		"not an identity":         {Role: identity.Admin, Name: "ada lovelace"},
		"for servers alone":       {Role: identity.Node, Name: "a", DNS: []string{"a"}},
		"is no DNS name":          {Role: identity.Server, Name: "a", DNS: []string{"https://a"}},
		"is less than a second":   {Role: identity.Node, Name: "a", Lifetime: time.Millisecond},
		"0 characters, not 1 to ": {Role: identity.Node},
	} {
		if _, _, err := a.Issue(request, moment); err == nil || !strings.Contains(err.Error(), fault) {
			t.Errorf("%v: got %v, want %q", request, err, fault)
		}
	}
	if _, _, err := a.Issue(authority.Request{Role: identity.Node, Name: "a"}, a.Expiry()); err == nil || !strings.Contains(err.Error(), "the CA has expired") {
		t.Errorf("of a CA that has ended: got %v", err)
	}
	if _, err := authority.New("Example", moment); err == nil {
		t.Error("a trust domain with capitals")
	}
}

func TestNothingOutlivesTheCA(t *testing.T) {
	a := newAuthority(t)
	_, certificate, err := a.Issue(authority.Request{Role: identity.Node, Name: "a"}, a.Expiry().Add(-time.Hour))
	if err != nil || !certificate.NotAfter.Equal(a.Expiry()) {
		t.Errorf("got %v until %v, want the CA's end, %v", err, certificate.NotAfter, a.Expiry())
	}
}

func TestRequestOf(t *testing.T) {
	a := newAuthority(t)
	for _, request := range []authority.Request{
		{Role: identity.Node, Name: "web-1", Lifetime: time.Hour},
		{Role: identity.Server, Name: "fd00::1", DNS: []string{"localhost", "policy"}, IPs: []netip.Addr{
			netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("fd00::1"),
		}, Lifetime: 24 * time.Hour},
	} {
		_, certificate, err := a.Issue(request, moment)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.RequestOf(certificate)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(request, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestDue(t *testing.T) {
	a := newAuthority(t)
	_, certificate, err := a.Issue(authority.Request{Role: identity.Node, Name: "a", Lifetime: 30 * 24 * time.Hour}, moment)
	if err != nil {
		t.Fatal(err)
	}
	for days, want := range map[int]bool{0: false, 19: false, 21: true, 31: true} {
		if got := authority.Due(certificate, moment.AddDate(0, 0, days)); got != want {
			t.Errorf("after %d of 30 days: got %v", days, got)
		}
	}
}
