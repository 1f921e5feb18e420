package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/nameward/nameward/api/identity"
)

// logInterval is how often refusals of one reason are logged: a fleet whose certificates have expired comes again and
// again.
const logInterval = 10 * time.Second

// Refusals counts refused connections by reason, and logs them.
type Refusals struct {
	log *slog.Logger

	mu     sync.Mutex // guards all below
	counts map[Reason]uint64
	logged map[Reason]time.Time
	silent map[Reason]uint64
}

// NewRefusals counts from zero.
func NewRefusals(log *slog.Logger) *Refusals {
	return &Refusals{log: log, counts: map[Reason]uint64{}, logged: map[Reason]time.Time{}, silent: map[Reason]uint64{}}
}

// Counts returns how many were refused, for every reason.
func (r *Refusals) Counts() map[Reason]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	counts := make(map[Reason]uint64)
	for _, reason := range Reasons() {
		counts[reason] = r.counts[reason]
	}
	return counts
}

// count counts a refusal and logs it, unless one of its kind was just logged. certificate is nil where there is none.
func (r *Refusals) count(refusal *RefusedError, from net.Addr, certificate *x509.Certificate) {
	now := time.Now()
	r.mu.Lock()
	r.counts[refusal.Reason]++
	if now.Sub(r.logged[refusal.Reason]) < logInterval {
		r.silent[refusal.Reason]++
		r.mu.Unlock()
		return
	}
	silent := r.silent[refusal.Reason]
	r.logged[refusal.Reason], r.silent[refusal.Reason] = now, 0
	r.mu.Unlock()
	r.log.Warn("connection refused", "reason", string(refusal.Reason), "peer", from.String(), "certificate", nameOf(certificate), "err", refusal, "not_logged_before", silent)
}

// unverified returns the certificate that was found wanting, nil for none.
func unverified(err error) *x509.Certificate {
	var failed *tls.CertificateVerificationError
	if errors.As(err, &failed) && len(failed.UnverifiedCertificates) > 0 {
		return failed.UnverifiedCertificates[0]
	}
	return nil
}

// nameOf says what a certificate that is not to be trusted claims.
func nameOf(certificate *x509.Certificate) string {
	if certificate == nil {
		return ""
	}
	if id, err := identity.FromCertificate(certificate); err == nil {
		return id.String()
	}
	return fmt.Sprintf("%q", certificate.Subject.String())
}
