// Package authority is a small private CA: New makes it, Issue has it say who somebody is. It keeps nothing and
// reads no clock. It is what `namewardctl pki` works with, and the tests.
package authority

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/nameward/nameward/api/identity"
)

const (
	// Lifetime is that of a CA, LeafLifetime the usual one of what it issues.
	Lifetime     = 10 * 365 * 24 * time.Hour
	LeafLifetime = 90 * 24 * time.Hour
	// backdate is by how much a clock may be behind that of the CA's machine.
	backdate = 5 * time.Minute
)

// Authority is a CA of one trust domain.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	trustDomain string
}

// Pair is a certificate and its key, in PEM.
type Pair struct{ Certificate, Key []byte }

// New makes a CA.
func New(trustDomain string, now time.Time) (*Authority, error) {
	if _, err := identity.ParseTrustDomain(trustDomain); err != nil {
		return nil, err //nolint:wrapcheck // it says what
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	template, err := newTemplate("Nameward CA of "+trustDomain, now, now.Add(Lifetime))
	if err != nil {
		return nil, err
	}
	template.URIs = []*url.URL{{Scheme: "spiffe", Host: trustDomain}}
	template.IsCA, template.BasicConstraintsValid, template.MaxPathLenZero = true, true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	certificate, err := sign(template, template, key, key)
	if err != nil {
		return nil, err
	}
	return &Authority{certificate, key, trustDomain}, nil
}

// Parse reads a CA that New made.
func Parse(pair Pair) (*Authority, error) {
	certificate, err := ParseCertificate(pair.Certificate)
	if err != nil {
		return nil, fmt.Errorf("certificate of the CA: %w", err)
	}
	block, _ := pem.Decode(pair.Key)
	if block == nil {
		return nil, errors.New("key of the CA: no PEM in it")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key of the CA: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	switch {
	case !ok || !key.PublicKey.Equal(certificate.PublicKey):
		return nil, errors.New("key of the CA: it is not that of its certificate")
	case !certificate.IsCA || len(certificate.URIs) != 1 || certificate.URIs[0].Scheme != "spiffe":
		return nil, errors.New("certificate of the CA: it is none that `pki init` made")
	}
	return &Authority{certificate, key, certificate.URIs[0].Host}, nil
}

// ParseCertificate reads the first certificate of a PEM text.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("no certificate in PEM in it")
	}
	return x509.ParseCertificate(block.Bytes) //nolint:wrapcheck // it says what
}

// TrustDomain returns the trust domain that the CA speaks for.
func (a *Authority) TrustDomain() string { return a.trustDomain }

// Expiry returns when the CA ends.
func (a *Authority) Expiry() time.Time { return a.certificate.NotAfter }

// Pair returns what Parse reads.
func (a *Authority) Pair() (Pair, error) { return encode(a.certificate, a.key) }

func newTemplate(name string, now, until time.Time) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-backdate).Truncate(time.Second), NotAfter: until.Truncate(time.Second),
	}, nil
}

func sign(template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return x509.ParseCertificate(raw) //nolint:wrapcheck // it was just made
}

func encode(certificate *x509.Certificate, key *ecdsa.PrivateKey) (Pair, error) {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("encode key: %w", err)
	}
	return Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}),
	}, nil
}
