package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// ErrUnnamed is wrapped by every error of FromCertificate.
var ErrUnnamed = errors.New("certificate names nobody")

// FromCertificate returns whom a certificate speaks for: its URI, which is a SPIFFE ID and the only URI; where it
// has none, its only DNS name. With a SPIFFE ID, DNS names say where its holder is reached, not who it is. A
// certificate that could be read in two ways is refused.
func FromCertificate(certificate *x509.Certificate) (ID, error) {
	switch {
	case certificate.IsCA:
		return ID{}, fmt.Errorf("%w: it is that of a CA", ErrUnnamed)
	case len(certificate.URIs) > 1:
		return ID{}, fmt.Errorf("%w: it has %d URIs, and one must say who it is for", ErrUnnamed, len(certificate.URIs))
	case len(certificate.URIs) == 1:
		id, err := fromSPIFFE(certificate.URIs[0].String())
		if err != nil {
			return ID{}, fmt.Errorf("%w: its URI: %w", ErrUnnamed, err)
		}
		return id, nil
	case len(certificate.DNSNames) == 0:
		return ID{}, fmt.Errorf("%w: it has neither a SPIFFE ID nor a DNS name", ErrUnnamed)
	case len(certificate.DNSNames) > 1:
		return ID{}, fmt.Errorf("%w: it has no SPIFFE ID and %d DNS names: %s", ErrUnnamed, len(certificate.DNSNames), strings.Join(certificate.DNSNames, ", "))
	}
	id, err := fromDNS(certificate.DNSNames[0])
	if err != nil {
		return ID{}, fmt.Errorf("%w: %w", ErrUnnamed, err)
	}
	return id, nil
}
