package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/node"
)

// Request says who a certificate is for.
type Request struct {
	Role identity.Role
	Name string
	// DNS and IPs are where a server is reached, beside its name and this machine itself.
	DNS []string
	IPs []netip.Addr
	// Lifetime is LeafLifetime where it is zero.
	Lifetime time.Duration
}

// ErrNotForServer says that a name was asked for where nobody connects to.
var ErrNotForServer = errors.New("names and addresses to be reached by are for servers alone")

// Issue makes a key and a certificate.
func (a *Authority) Issue(request Request, now time.Time) (Pair, *x509.Certificate, error) {
	id, err := request.id(a.trustDomain)
	if err != nil {
		return Pair{}, nil, err
	}
	uri, err := url.Parse(id.String())
	if err != nil {
		return Pair{}, nil, fmt.Errorf("make URI: %w", err)
	}
	lifetime := request.Lifetime
	if lifetime == 0 {
		lifetime = LeafLifetime
	}
	switch {
	case lifetime < time.Second:
		return Pair{}, nil, fmt.Errorf("a lifetime of %v is less than a second", lifetime)
	case !now.Before(a.certificate.NotAfter):
		return Pair{}, nil, fmt.Errorf("the CA has expired at %s", a.certificate.NotAfter.UTC().Format(time.RFC3339))
	}
	until := now.Add(lifetime)
	if until.After(a.certificate.NotAfter) {
		until = a.certificate.NotAfter // what outlives its CA is worth nothing
	}
	template, err := newTemplate(request.Name, now, until)
	if err != nil {
		return Pair{}, nil, err
	}
	template.URIs = []*url.URL{uri}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	if request.Role == identity.Server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		template.DNSNames, template.IPAddresses = request.reached()
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, nil, fmt.Errorf("make key: %w", err)
	}
	certificate, err := sign(template, a.certificate, key, a.key)
	if err != nil {
		return Pair{}, nil, err
	}
	pair, err := encode(certificate, key)
	return pair, certificate, err
}

// FileName returns how the files of a certificate are called, without what tells them apart.
func (r Request) FileName() string { return string(r.Role) + "-" + r.pathName() }

// pathName returns the name as it stands in a SPIFFE ID, which has no room for a colon.
func (r Request) pathName() string { return strings.ReplaceAll(r.Name, ":", "-") }

func (r Request) id(trustDomain string) (identity.ID, error) {
	if _, err := identity.ParseRole(string(r.Role)); err != nil {
		return identity.ID{}, err //nolint:wrapcheck // it says what
	}
	name := r.Name
	switch r.Role {
	case identity.Node:
		if _, err := node.ParseID(name); err != nil {
			return identity.ID{}, err //nolint:wrapcheck // it says what
		}
	case identity.Server:
		name = r.pathName()
	}
	if r.Role != identity.Server && len(r.DNS)+len(r.IPs) > 0 {
		return identity.ID{}, ErrNotForServer
	}
	for _, host := range r.DNS {
		if host == "" || strings.ContainsAny(host, " /:") {
			return identity.ID{}, fmt.Errorf("%q is no DNS name", host)
		}
	}
	id, err := identity.New(trustDomain, r.Role, name)
	if err != nil {
		return identity.ID{}, err //nolint:wrapcheck // it says what
	}
	if _, _, ok := id.Named(); !ok {
		return identity.ID{}, fmt.Errorf("%q is no name: it has a `/`", r.Name)
	}
	return id, nil
}

// reached returns the names and addresses that a server's certificate is good for: its own, those asked for, and
// the machine itself, from where it is administered.
func (r Request) reached() (names []string, addresses []net.IP) {
	ips := append([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}, r.IPs...)
	if own, err := netip.ParseAddr(r.Name); err == nil {
		ips = append(ips, own)
	} else {
		names = append(names, r.Name)
	}
	names = append(append(names, "localhost"), r.DNS...)
	slices.Sort(names)
	slices.SortFunc(ips, netip.Addr.Compare)
	for _, ip := range slices.Compact(ips) {
		addresses = append(addresses, ip.Unmap().AsSlice())
	}
	return slices.Compact(names), addresses
}

// RequestOf returns the request that a certificate came from, so that it can be renewed.
func (a *Authority) RequestOf(certificate *x509.Certificate) (Request, error) {
	id, err := identity.FromCertificate(certificate)
	if err != nil {
		return Request{}, err //nolint:wrapcheck // it says what
	}
	role, name, ok := id.Named()
	if !ok || id.TrustDomain() != a.trustDomain {
		return Request{}, fmt.Errorf("%s is nobody of the trust domain %s by its role and name", id, a.trustDomain)
	}
	request := Request{
		Role: role, Name: name,
		Lifetime: certificate.NotAfter.Sub(certificate.NotBefore.Add(backdate)).Round(time.Second),
	}
	if role == identity.Server {
		request.Name, request.DNS = certificate.Subject.CommonName, certificate.DNSNames
		for _, ip := range certificate.IPAddresses {
			if address, ok := netip.AddrFromSlice(ip); ok {
				request.IPs = append(request.IPs, address.Unmap())
			}
		}
	}
	return request, nil
}

// Due reports whether less than a third of a certificate's life is left.
func Due(certificate *x509.Certificate, now time.Time) bool {
	return certificate.NotAfter.Sub(now) < certificate.NotAfter.Sub(certificate.NotBefore)/3
}
