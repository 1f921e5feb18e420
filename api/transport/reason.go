package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// Reason is why a connection was refused, in a word: what metrics count by.
type Reason string

// The reasons. Those of the peer's certificate come first, then those that the peer has against the own one, then
// those of two that do not speak the same.
const (
	PeerExpired  Reason = "peer_expired"
	PeerUnknown  Reason = "peer_unknown_authority"
	PeerMissing  Reason = "peer_no_certificate"
	PeerHostName Reason = "peer_wrong_host_name"
	PeerIdentity Reason = "peer_wrong_identity"
	PeerInvalid  Reason = "peer_invalid"
	OwnMissing   Reason = "own_missing"
	OwnRefused   Reason = "own_refused"
	OwnExpired   Reason = "own_expired"
	OwnUnknown   Reason = "own_unknown_authority"
	PlainText    Reason = "plain_text"
	OtherTLS     Reason = "tls_version"
	Failed       Reason = "failed"
)

// Reasons returns all of them.
func Reasons() []Reason {
	return []Reason{
		PeerExpired, PeerUnknown, PeerMissing, PeerHostName, PeerIdentity, PeerInvalid,
		OwnMissing, OwnRefused, OwnExpired, OwnUnknown, PlainText, OtherTLS, Failed,
	}
}

// RefusedError says why there is no connection, in words for a person who looks after one end.
type RefusedError struct {
	Reason Reason
	text   string
	err    error
}

// Error returns the words.
func (e *RefusedError) Error() string {
	if e.err == nil {
		return e.text
	}
	return e.text + ": " + e.err.Error()
}

// Unwrap returns what it comes from, if that says more.
func (e *RefusedError) Unwrap() error { return e.err }

func refusedf(reason Reason, format string, args ...any) *RefusedError {
	return &RefusedError{Reason: reason, text: fmt.Sprintf(format, args...)}
}

// ErrIdentity is wrapped where a certificate is good but not of whom it must be.
var ErrIdentity = errors.New("wrong identity")

// judge turns the error of a handshake, or of the first bytes after it, into words. peer is what the other end is
// called. It returns nil for what is no refusal: a connection that just broke.
func judge(err error, peer string) *RefusedError {
	var (
		refused *RefusedError
		header  tls.RecordHeaderError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		host    x509.HostnameError
		remote  *net.OpError
		network net.Error
	)
	switch {
	case errors.As(err, &refused):
		return refused
	case errors.As(err, &header):
		return refusedf(PlainText, "the %s does not speak TLS on this port: it runs with --insecure, or this is the port of something else", peer)
	case errors.As(err, &unknown):
		return refusedf(PeerUnknown, "the %s's certificate is of a CA that is not trusted here (%s)", peer, unknown.Cert.Issuer)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refusedf(PeerExpired, "the %s's certificate is good from %s to %s, and not now", peer, inUTC(invalid.Cert.NotBefore), inUTC(invalid.Cert.NotAfter))
	case errors.As(err, &host):
		return refusedf(PeerHostName, "the %s's certificate is not for %s, which was connected to, but for %s: connect to one of these, or set --tls-server-name", peer, host.Host, reachedBy(host.Certificate))
	case errors.As(err, &remote) && remote.Op == "remote error":
		return judgeAlert(remote.Err.Error(), peer)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &network):
		return nil
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		return refusedf(PeerMissing, "the %s gave no certificate", peer)
	case errors.As(err, &invalid):
		return &RefusedError{PeerInvalid, "the " + peer + "'s certificate is not good", invalid}
	case strings.Contains(err.Error(), "unsupported versions"):
		return refusedf(OtherTLS, "the %s does not speak TLS 1.3", peer)
	}
	return &RefusedError{Failed, "no TLS connection with the " + peer, err}
}

// judgeAlert says what the other end has against this one. With TLS 1.3 a client hears of it only when it has ended
// its handshake, with the first bytes that it reads.
func judgeAlert(alert, peer string) *RefusedError {
	switch strings.TrimPrefix(alert, "tls: ") {
	case "expired certificate":
		return refusedf(OwnExpired, "the %s refused the certificate of this program: it has expired, or is not good yet by the %s's clock", peer, peer)
	case "unknown certificate authority":
		return refusedf(OwnUnknown, "the %s refused the certificate of this program: it is of a CA that the %s does not trust", peer, peer)
	case "certificate required":
		return refusedf(OwnRefused, "the %s wants a certificate and was given none", peer)
	case "bad certificate", "unsupported certificate", "revoked certificate", "unknown certificate":
		return refusedf(OwnRefused, "the %s refused the certificate of this program: its log says why", peer)
	case "protocol version not supported":
		return refusedf(OtherTLS, "the %s does not speak TLS 1.3", peer)
	}
	return refusedf(Failed, "the %s ended the TLS handshake: %s", peer, alert)
}

// reachedBy lists what a server's certificate is good for.
func reachedBy(certificate *x509.Certificate) string {
	names := append([]string{}, certificate.DNSNames...)
	for _, ip := range certificate.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name at all"
	}
	return strings.Join(names, ", ")
}
