package transport

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/nameward/nameward/api/identity"
)

// Material is what a program proves itself with and judges others by, at one time. It is immutable.
type Material struct {
	// ID is whom the program speaks for; zero for a server whose certificate has no SPIFFE ID.
	ID identity.ID
	// Leaf is the program's own certificate.
	Leaf *x509.Certificate
	// Authorities are the CAs of the other end.
	Authorities []*x509.Certificate
	// TrustDomain is that of everybody who is spoken with; empty for none.
	TrustDomain string

	certificate tls.Certificate
	roots       *x509.CertPool
	server      *tls.Config // where this end is a server
}

// newMaterial checks what a source says.
func (c Config) newMaterial(end end, certificate tls.Certificate, authorities []*x509.Certificate) (*Material, error) {
	leaf := certificate.Leaf
	id, err := identity.FromCertificate(leaf)
	if err != nil && (end != serverEnd || len(leaf.URIs) > 0 || leaf.IsCA) {
		return nil, fmt.Errorf("own %w", err)
	}
	if role, _, ok := id.Named(); end == serverEnd && ok && role != identity.Server && !id.DNS() {
		return nil, fmt.Errorf("own certificate is of %s, which is no server: clients would refuse it", id)
	}
	m := &Material{
		ID: id, Leaf: leaf, Authorities: authorities, TrustDomain: cmp.Or(c.TrustDomain, id.TrustDomain()),
		certificate: certificate, roots: x509.NewCertPool(),
	}
	if own := id.TrustDomain(); own != "" && own != m.TrustDomain {
		return nil, fmt.Errorf("own certificate is of the trust domain %s, and --trust-domain says %s", own, m.TrustDomain)
	}
	for _, authority := range authorities {
		m.roots.AddCert(authority)
	}
	if end == serverEnd {
		m.server = newServerConfig(certificate, m.roots)
	}
	return m, nil
}

// loadFiles reads the files.
func (c Config) loadFiles(end end) (*Material, error) {
	certificate, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read %s and its key %s: %w", c.CertFile, c.KeyFile, err)
	}
	authorities, err := readAuthorities(c.ca())
	if err != nil {
		return nil, err
	}
	m, err := c.newMaterial(end, certificate, authorities)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.CertFile, err)
	}
	return m, nil
}

func readAuthorities(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read CAs: %w", err)
	}
	var authorities []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return nil, fmt.Errorf("read CAs of %s: %w", path, err)
		case !certificate.IsCA:
			return nil, fmt.Errorf("read CAs of %s: %s is no CA", path, certificate.Subject)
		}
		authorities = append(authorities, certificate)
	}
	if len(authorities) == 0 {
		return nil, fmt.Errorf("read CAs of %s: %w", path, errNoPEM)
	}
	return authorities, nil
}

var errNoPEM = errors.New("no certificate in PEM in it")

// Expiry returns when the own certificate ends.
func (m *Material) Expiry() time.Time { return m.Leaf.NotAfter }

// AuthorityExpiry returns when the first of the CAs ends.
func (m *Material) AuthorityExpiry() time.Time { return m.firstAuthority().NotAfter }

func (m *Material) firstAuthority() *x509.Certificate {
	return slices.MinFunc(m.Authorities, func(a, b *x509.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
}

// OwnAuthority reports whether the own certificate is of one of the CAs that the other end must be of. That it is not
// may be meant, where the two ends have CAs of their own.
func (m *Material) OwnAuthority() bool {
	intermediates := x509.NewCertPool()
	for _, raw := range m.certificate.Certificate[1:] {
		if certificate, err := x509.ParseCertificate(raw); err == nil {
			intermediates.AddCert(certificate)
		}
	}
	_, err := m.Leaf.Verify(x509.VerifyOptions{
		Roots: m.roots, Intermediates: intermediates, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		CurrentTime: m.Leaf.NotBefore.Add(m.Leaf.NotAfter.Sub(m.Leaf.NotBefore) / 2),
	})
	return err == nil
}
