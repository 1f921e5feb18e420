package transport

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"time"
)

const (
	// lifePart is the part of a certificate's life at whose end it is told of, mostEarly how long before it at most: a
	// CA lives for years.
	lifePart  = 5
	mostEarly = 90 * 24 * time.Hour
)

// concern is a certificate whose end is near or past.
type concern struct {
	certificate *x509.Certificate
	expired     bool
	text        string
}

// key tells what was said from what was not.
func (c concern) key() string {
	return fmt.Sprint((*big.Int)(c.certificate.SerialNumber), c.certificate.NotAfter.Unix(), c.expired)
}

// concerns returns what is to be said of the certificates' ends, each with its remedy.
func (c Config) concerns(m *Material, now time.Time) []concern {
	var list []concern
	for _, of := range []struct {
		what        string
		certificate *x509.Certificate
		remedy      string
	}{{"the certificate of " + m.name(), m.Leaf, c.Renewal()}, {"the CA " + m.firstAuthority().Subject.String(), m.firstAuthority(), c.AuthorityRenewal()}} {
		ends := of.certificate.NotAfter
		switch left := ends.Sub(now); {
		case left <= 0:
			list = append(list, concern{of.certificate, true, fmt.Sprintf("%s has expired, at %s: connections that are open go on, new ones are refused. Remedy: %s", of.what, inUTC(ends), of.remedy)})
		case near(of.certificate, now):
			list = append(list, concern{of.certificate, false, fmt.Sprintf("%s ends at %s, in %s. Remedy: %s", of.what, inUTC(ends), roughly(left), of.remedy)})
		}
	}
	return list
}

// near reports whether a certificate's end is to be told of.
func near(certificate *x509.Certificate, now time.Time) bool {
	life := certificate.NotAfter.Sub(certificate.NotBefore)
	return certificate.NotAfter.Sub(now) < min(life/lifePart, mostEarly)
}

// EndsSoon reports whether less than a fifth of the own certificate's life is left.
func (m *Material) EndsSoon(now time.Time) bool { return near(m.Leaf, now) }

// Renewal says what to do about an own certificate that ends.
func (c Config) Renewal() string {
	if c.SPIFFESocket != "" {
		return "see why the SPIFFE Workload API at " + c.SPIFFESocket + " does not renew it"
	}
	return fmt.Sprintf("renew it (`namewardctl pki renew`) and put it with its key at %s and %s: it is taken up by itself", c.CertFile, c.KeyFile)
}

// AuthorityRenewal says what to do about a CA that ends.
func (c Config) AuthorityRenewal() string {
	if c.SPIFFESocket != "" {
		return "see why the trust bundle of " + c.SPIFFESocket + " is not renewed"
	}
	return "add its successor to " + c.ca() + " at both ends, then issue anew what is of it"
}

// name returns whom the own certificate is for.
func (m *Material) name() string {
	if m.ID.IsZero() {
		return m.Leaf.Subject.String()
	}
	return m.ID.String()
}

func inUTC(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// roughly says a time in one unit.
func roughly(d time.Duration) string {
	for _, unit := range []struct {
		of   time.Duration
		name string
	}{{24 * time.Hour, "days"}, {time.Hour, "hours"}, {time.Minute, "minutes"}} {
		if d >= 2*unit.of {
			return fmt.Sprintf("%d %s", d/unit.of, unit.name)
		}
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}
