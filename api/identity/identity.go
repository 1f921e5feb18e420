// Package identity says who a certificate speaks for: FromCertificate is the rule, the same for server, agent
// and command line. Whether its holder may do something is not decided here, nor whether the certificate is
// to be trusted at all.
package identity

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/nameward/nameward/api/node"
)

// ErrBadID is wrapped by every error of ParseID and ParseTrustDomain.
var ErrBadID = errors.New("not an identity")

const dnsPrefix = "dns:"

// ID is who somebody is: a SPIFFE ID, `spiffe://DOMAIN/PATH`, or the DNS name of a node, `dns:NAME`. IDs are
// comparable. The zero ID is nobody.
type ID struct {
	spiffe spiffeid.ID
	dns    string
}

// ParseID reads what String writes.
func ParseID(s string) (ID, error) {
	if name, ok := strings.CutPrefix(s, dnsPrefix); ok {
		return fromDNS(name)
	}
	return fromSPIFFE(s)
}

// New returns the ID of a role's bearer by the convention `spiffe://DOMAIN/ROLE/NAME`.
func New(trustDomain string, role Role, name string) (ID, error) {
	if _, err := ParseTrustDomain(trustDomain); err != nil {
		return ID{}, err
	}
	return fromSPIFFE("spiffe://" + trustDomain + "/" + string(role) + "/" + name)
}

// ParseTrustDomain reads the name of a trust domain, `example.org`.
func ParseTrustDomain(s string) (string, error) {
	if strings.Contains(s, "/") {
		return "", fmt.Errorf("%w: trust domain %q is a name alone, as in spiffe://NAME/…", ErrBadID, s)
	}
	domain, err := spiffeid.TrustDomainFromString(s)
	if err != nil {
		return "", fmt.Errorf("%w: trust domain %q: %w", ErrBadID, s, err)
	}
	return domain.Name(), nil
}

func fromSPIFFE(s string) (ID, error) {
	id, err := spiffeid.FromString(s)
	if err != nil {
		return ID{}, fmt.Errorf("%w: %q: %w", ErrBadID, s, err)
	}
	if id.Path() == "" {
		return ID{}, fmt.Errorf("%w: %q is a trust domain, nobody in it", ErrBadID, s)
	}
	return ID{spiffe: id}, nil
}

// fromDNS takes names that a node can have.
func fromDNS(name string) (ID, error) {
	if _, err := node.ParseID(name); err != nil {
		return ID{}, fmt.Errorf("%w: DNS name %q: %w", ErrBadID, name, err)
	}
	return ID{dns: strings.ToLower(name)}, nil
}

// IsZero reports whether the ID is nobody.
func (id ID) IsZero() bool { return id == ID{} }

// String returns `spiffe://DOMAIN/PATH`, `dns:NAME`, or nothing for nobody.
func (id ID) String() string {
	if id.dns != "" {
		return dnsPrefix + id.dns
	}
	return id.spiffe.String()
}

// TrustDomain returns the name of the trust domain, which a DNS name has not.
func (id ID) TrustDomain() string { return id.spiffe.TrustDomain().Name() }

// Path returns what follows the trust domain, `/ROLE/NAME` by convention; a DNS name has none.
func (id ID) Path() string {
	if id.spiffe.IsZero() {
		return ""
	}
	return id.spiffe.Path()
}

// DNS reports whether the ID is a DNS name.
func (id ID) DNS() bool { return id.dns != "" }
