package transport_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/api/authority"
	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/transport"
)

const domain = "example.org"

// world is a CA and the files that it made.
type world struct {
	*testing.T
	ca  *authority.Authority
	dir string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, dir: t.TempDir()}
	w.ca = w.newAuthority(domain)
	w.write("ca.crt", w.pairOf(w.ca).Certificate)
	return w
}

func (w *world) newAuthority(domain string) *authority.Authority {
	w.Helper()
	ca, err := authority.New(domain, time.Now())
	w.must(err)
	return ca
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) pairOf(ca *authority.Authority) authority.Pair {
	w.Helper()
	pair, err := ca.Pair()
	w.must(err)
	return pair
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// write puts a new file in place of an old one.
func (w *world) write(name string, text []byte) {
	w.Helper()
	w.must(os.WriteFile(w.path(name+".new"), text, 0o600))
	w.must(os.Rename(w.path(name+".new"), w.path(name)))
}

func (w *world) store(name string, pair authority.Pair) {
	w.Helper()
	w.write(name+".crt", pair.Certificate)
	w.write(name+".key", pair.Key)
}

func issue(w *world, ca *authority.Authority, role identity.Role, name string, at time.Time, lifetime time.Duration) authority.Pair {
	w.Helper()
	pair, _, err := ca.Issue(authority.Request{Role: role, Name: name, Lifetime: lifetime}, at)
	w.must(err)
	return pair
}

// issued writes a good certificate of the world's CA, and returns what uses it.
func (w *world) issued(role identity.Role, name string) transport.Config {
	w.Helper()
	w.store(string(role)+"-"+name, issue(w, w.ca, role, name, time.Now(), time.Hour))
	return w.config(string(role) + "-" + name)
}

func (w *world) config(name string) transport.Config {
	return transport.Config{CertFile: w.path(name + ".crt"), KeyFile: w.path(name + ".key"), CAFile: w.path("ca.crt")}
}

// crafted makes a certificate as pki would not.
func (w *world) crafted(change func(*x509.Certificate)) authority.Pair {
	w.Helper()
	pair := w.pairOf(w.ca)
	parent, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	w.must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	change(template)
	raw, err := x509.CreateCertificate(rand.Reader, template, parent.Leaf, key.Public(), parent.PrivateKey)
	w.must(err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	w.must(err)
	return authority.Pair{
		Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}),
		Key:         pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}),
	}
}

func withURI(text string) func(*x509.Certificate) {
	return func(template *x509.Certificate) {
		uri, err := url.Parse(text)
		if err != nil {
			panic(err)
		}
		template.URIs = []*url.URL{uri}
	}
}

// logBuffer is a log that tests read.
type logBuffer struct {
	mu      sync.Mutex
	text    bytes.Buffer
	written chan struct{} // closed with the next line
}

func newLogBuffer() *logBuffer { return &logBuffer{written: make(chan struct{})} }

func (b *logBuffer) Write(text []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.written)
	b.written = make(chan struct{})
	return b.text.Write(text)
}

// await waits until a condition holds, which is judged anew when something is logged: what a source does it logs once it
// is done.
func (b *logBuffer) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	for {
		b.mu.Lock()
		written := b.written
		b.mu.Unlock()
		if holds() {
			return
		}
		select {
		case <-written:
		case <-timer.C:
			t.Fatalf("no %s; logged:\n%s", what, b)
		}
	}
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// end is one end of connections.
type end struct {
	source   *transport.Source
	refusals *transport.Refusals
	log      *logBuffer
	address  string
	callers  chan transport.Caller
}

func newEnd(w *world, cfg transport.Config, newSource func(transport.Config, *slog.Logger) *transport.Source) *end {
	w.Helper()
	e := &end{log: newLogBuffer(), callers: make(chan transport.Caller, 100)}
	log := slog.New(slog.NewTextHandler(e.log, nil))
	e.source, e.refusals = newSource(cfg, log), transport.NewRefusals(log)
	w.must(e.source.Load(w.Context()))
	return e
}

// serve starts a server that says who calls.
func serve(w *world, cfg transport.Config) *end {
	w.Helper()
	e := newEnd(w, cfg, transport.NewServerSource)
	e.listen(w, transport.NewServerCredentials(e.source, e.refusals))
	return e
}

func (e *end) listen(w *world, creds credentials.TransportCredentials) {
	w.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	w.must(err)
	server := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(func(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		caller, err := transport.CallerFrom(ctx)
		if err != nil {
			return nil, status.Error(codes.Internal, err.Error())
		}
		e.callers <- caller
		return handler(ctx, request)
	}))
	healthv1.RegisterHealthServer(server, health.NewServer())
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	w.Cleanup(func() {
		server.Stop()
		<-done
	})
	e.address = listener.Addr().String()
}

func client(w *world, cfg transport.Config) *end {
	w.Helper()
	return newEnd(w, cfg, transport.NewClientSource)
}

func dial(w *world, address string, creds credentials.TransportCredentials) *grpc.ClientConn {
	w.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(creds))
	w.must(err)
	w.Cleanup(func() { conn.Close() })
	return conn
}

// call makes a connection of its own.
func (e *end) call(w *world, address string) error {
	w.Helper()
	return check(w, dial(w, address, transport.NewClientCredentials(e.source, e.refusals)))
}

func check(w *world, conn *grpc.ClientConn) error {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
	defer cancel()
	_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	return err
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func textLog(b *logBuffer) *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

func (w *world) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(w.pairOf(w.ca).Certificate)
	return roots
}

// read returns the pair of a material, from its files.
func (w *world) read(m *transport.Material) tls.Certificate {
	w.Helper()
	for _, name := range []string{"other", "dns"} {
		pair, err := tls.LoadX509KeyPair(w.path(name+".crt"), w.path(name+".key"))
		if err == nil && pair.Leaf.Equal(m.Leaf) {
			return pair
		}
	}
	w.Fatal("no such files")
	return tls.Certificate{}
}
