package transport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/transport"
)

func TestBothEndsKnowEachOther(t *testing.T) {
	w := newWorld(t)
	server := serve(w, w.issued(identity.Server, "127.0.0.1"))
	w.must(client(w, w.issued(identity.Node, "web-1")).call(w, server.address))
	caller := <-server.callers
	if caller.ID.String() != "spiffe://example.org/node/web-1" || caller.Anonymous() || caller.Certificate == nil {
		t.Errorf("got caller %+v", caller)
	}
}

func TestPlainTextIsAnonymous(t *testing.T) {
	w := newWorld(t)
	e := &end{callers: make(chan transport.Caller, 1)}
	e.listen(w, transport.NewPlainServer(transport.NewRefusals(discard())))
	w.must(check(w, dial(w, e.address, insecure.NewCredentials())))
	if caller := <-e.callers; !caller.Anonymous() {
		t.Errorf("got caller %+v", caller)
	}
}

func TestConnectionsOfOthersAreNobodys(t *testing.T) {
	if caller, err := transport.CallerFrom(t.Context()); err == nil {
		t.Errorf("got %+v", caller)
	}
}

// refusal is what both ends say of a connection that there is not.
type refusal struct {
	client, server         string // in what the caller hears, and in the server's log
	clientCount, serverHas transport.Reason
}

func (r refusal) judge(t *testing.T, err error, client, server *end) {
	t.Helper()
	if err == nil {
		t.Fatal("connected")
	}
	words := transport.Words(err)
	if !strings.Contains(words, r.client) {
		t.Errorf("the client hears %q, want %q in it", words, r.client)
	}
	if r.clientCount != "" && client.refusals.Counts()[r.clientCount] == 0 {
		t.Errorf("the client counted %v, want %s", client.refusals.Counts(), r.clientCount)
	}
	if r.serverHas == "" {
		return
	}
	// The server may have its say just after the client went.
	server.log.await(t, "refusal for "+string(r.serverHas)+" with "+r.server, func() bool {
		return server.refusals.Counts()[r.serverHas] > 0 && strings.Contains(server.log.String(), r.server)
	})
}

func TestServerRefuses(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		client func(w *world) transport.Config
		refusal
	}{
		"an expired certificate": {func(w *world) transport.Config {
			w.store("old", issue(w, w.ca, identity.Node, "web-1", now.Add(-2*time.Hour), time.Hour))
			return w.config("old")
		}, refusal{"refused the certificate of this program: it has expired", "good from", transport.OwnExpired, transport.PeerExpired}},
		"a certificate of a foreign CA": {func(w *world) transport.Config {
			w.store("foreign", issue(w, w.newAuthority(domain), identity.Node, "web-1", now, time.Hour))
			return w.config("foreign")
		}, refusal{"is of a CA that the server does not trust (spiffe://example.org/node/web-1", "certificate=spiffe://example.org/node/web-1", transport.OwnUnknown, transport.PeerUnknown}},
		"another trust domain of the same CA": {func(w *world) transport.Config {
			w.store("other", w.crafted(withURI("spiffe://elsewhere/node/web-1")))
			cfg := w.config("other")
			return cfg
		}, refusal{"is of spiffe://elsewhere/node/web-1, of another trust domain", "spiffe://elsewhere/node/web-1", "", transport.PeerIdentity}},
		"two identities": {func(w *world) transport.Config {
			w.store("other", w.crafted(func(template *x509.Certificate) {
				withURI("spiffe://example.org/node/web-1")(template)
				template.URIs = append(template.URIs, template.URIs[0])
			}))
			return w.config("other")
		}, refusal{}},
		"a DNS name alone": {func(w *world) transport.Config {
			w.store("dns", w.crafted(func(template *x509.Certificate) { template.DNSNames = []string{"web-1"} }))
			return w.config("dns")
		}, refusal{"has no SPIFFE ID, only the DNS name dns:web-1", "--node-dns-names", "", transport.PeerIdentity}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			server := serve(w, w.issued(identity.Server, "127.0.0.1"))
			cfg := c.client(w)
			if c.refusal == (refusal{}) { // its own source does not take it
				if err := transport.NewClientSource(cfg, discard()).Load(t.Context()); err == nil {
					t.Error("loaded")
				}
				return
			}
			// The server's own trust domain is as good as any to the client of another.
			cfg.TrustDomain = ""
			e := client(w, cfg)
			c.judge(t, e.callAnyServer(w, server.address), e, server)
		})
	}
}

// callAnyServer calls without a look at whose certificate the server has, as a client that is not ours.
func (e *end) callAnyServer(w *world, address string) error {
	w.Helper()
	m, _ := e.source.Current()
	if m.TrustDomain == domain {
		return e.call(w, address)
	}
	pair := w.read(m)
	return check(w, dial(w, address, credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: w.roots(),
	})))
}

func TestServerTakesDNSNamesOfNodes(t *testing.T) {
	w := newWorld(t)
	cfg := w.issued(identity.Server, "127.0.0.1")
	cfg.NodeDNSNames = true
	server := serve(w, cfg)
	w.store("dns", w.crafted(func(template *x509.Certificate) { template.DNSNames = []string{"web-1"} }))
	own := w.config("dns")
	own.TrustDomain = domain
	w.must(client(w, own).call(w, server.address))
	if caller := <-server.callers; caller.ID.String() != "dns:web-1" {
		t.Errorf("got caller %+v", caller)
	}
}

func TestServerRefusesWhoHasNone(t *testing.T) {
	w := newWorld(t)
	server := serve(w, w.issued(identity.Server, "127.0.0.1"))
	err := check(w, dial(w, server.address, credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: w.roots()})))
	refusal{"certificate required", "gave no certificate", "", transport.PeerMissing}.judge(t, err, nil, server)
}

func TestServerRefusesOldTLS(t *testing.T) {
	w := newWorld(t)
	server := serve(w, w.issued(identity.Server, "127.0.0.1"))
	err := check(w, dial(w, server.address, credentials.NewTLS(&tls.Config{MaxVersion: tls.VersionTLS12, RootCAs: w.roots()})))
	refusal{"protocol version not supported", "does not speak TLS 1.3", "", transport.OtherTLS}.judge(t, err, nil, server)
}

func TestPlainTextToTLS(t *testing.T) {
	w := newWorld(t)
	server := serve(w, w.issued(identity.Server, "127.0.0.1"))
	err := check(w, dial(w, server.address, insecure.NewCredentials()))
	refusal{"this server speaks TLS, and the client plain text: leave out --insecure", "plain text", "", transport.PlainText}.judge(t, err, nil, server)
	if status.Code(err) != codes.Unauthenticated {
		t.Errorf("got code %v, want Unauthenticated", status.Code(err))
	}
	// A browser, or curl.
	response, err := http.Get("http://" + server.address)
	w.must(err)
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "speaks TLS") {
		t.Errorf("got %d %q", response.StatusCode, body)
	}
}

func TestTLSToPlainText(t *testing.T) {
	w := newWorld(t)
	log := newLogBuffer()
	server := &end{log: log, refusals: transport.NewRefusals(textLog(log)), callers: make(chan transport.Caller, 1)}
	server.listen(w, transport.NewPlainServer(server.refusals))
	e := client(w, w.issued(identity.Node, "web-1"))
	refusal{"the server does not speak TLS on this port: it runs with --insecure", "the client TLS", transport.PlainText, transport.PlainText}.
		judge(t, e.call(w, server.address), e, server)
}

// TestPortProbe: who connects and says nothing is no refusal.
func TestPortProbe(t *testing.T) {
	w := newWorld(t)
	server := serve(w, w.issued(identity.Server, "127.0.0.1"))
	conn, err := net.Dial("tcp", server.address)
	w.must(err)
	w.must(conn.Close())
	w.must(client(w, w.issued(identity.Node, "web-1")).call(w, server.address))
	for reason, count := range server.refusals.Counts() {
		if count != 0 {
			t.Errorf("counted %d of %s", count, reason)
		}
	}
}

func TestClientRefuses(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		server func(w *world) transport.Config
		client func(cfg *transport.Config)
		refusal
	}{
		"an expired certificate": {func(w *world) transport.Config {
			w.store("old", issue(w, w.ca, identity.Server, "127.0.0.1", now.Add(-2*time.Hour), time.Hour))
			return w.config("old")
		}, nil, refusal{"the server's certificate is good from", "", transport.PeerExpired, ""}},
		"a certificate of a foreign CA": {func(w *world) transport.Config {
			w.store("foreign", issue(w, w.newAuthority(domain), identity.Server, "127.0.0.1", now, time.Hour))
			return w.config("foreign")
		}, nil, refusal{"the server's certificate is of a CA that is not trusted here", "", transport.PeerUnknown, ""}},
		"another host": {
			func(w *world) transport.Config { return w.issued(identity.Server, "127.0.0.1") },
			func(cfg *transport.Config) { cfg.ServerName = "policy.example.org" },
			refusal{"is not for policy.example.org, which was connected to, but for localhost, 127.0.0.1, ::1", "", transport.PeerHostName, ""},
		},
		"another trust domain": {func(w *world) transport.Config {
			w.store("other", w.crafted(withURI("spiffe://elsewhere/server/127.0.0.1")))
			return w.config("other")
		}, nil, refusal{"is of spiffe://elsewhere/server/127.0.0.1, of another trust domain than this program's", "", transport.PeerIdentity, ""}},
		"a certificate of no server": {func(w *world) transport.Config {
			w.store("other", w.crafted(withURI("spiffe://example.org/workloads/web")))
			return w.config("other")
		}, nil, refusal{"who answers is no server: its certificate is of spiffe://example.org/workloads/web", "", transport.PeerIdentity, ""}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			server := serve(w, c.server(w))
			cfg := w.issued(identity.Node, "web-1")
			if c.client != nil {
				c.client(&cfg)
			}
			e := client(w, cfg)
			c.judge(t, e.call(w, server.address), e, server)
		})
	}
}

// TestANodeIsNoServer: its certificate is not loaded by a server, and by none that is not ours believed.
func TestANodeIsNoServer(t *testing.T) {
	w := newWorld(t)
	cfg := w.issued(identity.Node, "web-1")
	err := transport.NewServerSource(cfg, discard()).Load(t.Context())
	if err == nil || !strings.Contains(err.Error(), "is of spiffe://example.org/node/web-1, which is no server") {
		t.Errorf("got %v", err)
	}
	w.store("rogue", w.crafted(withURI("spiffe://example.org/node/web-1")))
	rogue := &end{callers: make(chan transport.Caller, 1)}
	rogue.listen(w, rogueCredentials(w, "rogue"))
	e := client(w, w.issued(identity.Node, "web-2"))
	refusal{"who answers is no server: its certificate is of spiffe://example.org/node/web-1", "", transport.PeerIdentity, ""}.
		judge(t, e.call(w, rogue.address), e, nil)
}

// TestRefusalsAreLoggedNowAndThen: a fleet that comes again and again is counted, and does not fill the log.
func TestRefusalsAreLoggedNowAndThen(t *testing.T) {
	w := newWorld(t)
	server := serve(w, w.issued(identity.Server, "127.0.0.1"))
	for range 5 {
		err := check(w, dial(w, server.address, insecure.NewCredentials()))
		if status.Code(err) != codes.Unauthenticated {
			t.Fatal(err)
		}
	}
	if got := server.refusals.Counts()[transport.PlainText]; got != 5 {
		t.Errorf("counted %d, want 5", got)
	}
	if got := strings.Count(server.log.String(), "connection refused"); got != 1 {
		t.Errorf("logged %d times, want 1", got)
	}
}

// TestStreamsAreRefusedToo: who asks for a stream hears the same.
func TestStreamsAreRefusedToo(t *testing.T) {
	w := newWorld(t)
	server := serve(w, w.issued(identity.Server, "127.0.0.1"))
	conn := dial(w, server.address, insecure.NewCredentials())
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stream, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{}, grpc.WaitForReady(true))
	w.must(err)
	if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
}

// rogueCredentials are those of a server that shows any certificate.
func rogueCredentials(w *world, name string) credentials.TransportCredentials {
	w.Helper()
	pair, err := tls.LoadX509KeyPair(w.path(name+".crt"), w.path(name+".key"))
	w.must(err)
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert})
}
