package transport_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/transport"
)

// serial returns the serial number of the certificate that a server shows.
func (e *end) serial(w *world, address string) string {
	w.Helper()
	conn := dial(w, address, transport.NewClientCredentials(e.source, e.refusals))
	var who peer.Peer
	ctx, cancel := context.WithTimeout(w.Context(), 20*time.Second)
	defer cancel()
	_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&who))
	w.must(err)
	return who.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].SerialNumber.String()
}

func (e *end) current(w *world) *transport.Material {
	w.Helper()
	m, err := e.source.Current()
	w.must(err)
	return m
}

func TestReloadLeavesStreamsAlone(t *testing.T) {
	w := newWorld(t)
	server, node := serve(w, w.issued(identity.Server, "127.0.0.1")), client(w, w.issued(identity.Node, "web-1"))
	conn := dial(w, server.address, transport.NewClientCredentials(node.source, node.refusals))
	stream, err := healthv1.NewHealthClient(conn).Watch(t.Context(), &healthv1.HealthCheckRequest{})
	w.must(err)
	_, err = stream.Recv()
	w.must(err)
	before := node.serial(w, server.address)

	w.issued(identity.Server, "127.0.0.1")
	w.issued(identity.Node, "web-1")
	server.source.Look()
	node.source.Look()
	if after := node.serial(w, server.address); after == before || after != server.current(w).Leaf.SerialNumber.String() {
		t.Errorf("a new connection has the server's certificate %s, as before", after)
	}
	w.must(check(w, conn))
	var who peer.Peer
	_, err = healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{}, grpc.Peer(&who))
	w.must(err)
	if got := who.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].SerialNumber.String(); got != before {
		t.Errorf("the connection was made anew: certificate %s, want %s", got, before)
	}
	if reloads, failures := server.source.Stats(); reloads != 2 || failures != 0 {
		t.Errorf("got %d loads and %d failures, want 2 and 0", reloads, failures)
	}
}

func TestReloadByWrite(t *testing.T) {
	w := newWorld(t)
	cfg := w.issued(identity.Node, "web-1")
	node := client(w, cfg)
	pair := issue(w, w.ca, identity.Node, "web-1", time.Now(), 2*time.Hour)
	w.must(os.WriteFile(cfg.KeyFile, pair.Key, 0o600))
	node.source.Look() // between the two
	w.must(os.WriteFile(cfg.CertFile, pair.Certificate, 0o600))
	before := node.current(w)
	node.source.Look()
	if got := node.current(w); got == before {
		t.Error("the written certificate is not in force")
	}
	if reloads, failures := node.source.Stats(); reloads != 2 || failures != 0 {
		t.Errorf("got %d loads and %d failures, want 2 and 0", reloads, failures)
	}
}

func TestReloadByLink(t *testing.T) {
	w := newWorld(t)
	w.issued(identity.Node, "web-1")
	// As the volumes of Kubernetes are: a link to the directory of the moment.
	w.must(os.Symlink(w.dir, w.path("now")))
	cfg := transport.Config{CertFile: w.path("now/node-web-1.crt"), KeyFile: w.path("now/node-web-1.key"), CAFile: w.path("now/ca.crt")}
	node := client(w, cfg)
	before := node.current(w)
	next := newWorld(t)
	next.issued(identity.Node, "web-1")
	w.must(os.Symlink(next.dir, w.path("next")))
	w.must(os.Rename(w.path("next"), w.path("now")))
	node.source.Look()
	if got := node.current(w); got.Leaf.Equal(before.Leaf) || got.Authorities[0].Equal(before.Authorities[0]) {
		t.Error("certificate or CA are those of before")
	}
}

func TestBrokenPairLeavesTheLastGoodOne(t *testing.T) {
	w := newWorld(t)
	cfg := w.issued(identity.Node, "web-1")
	node := client(w, cfg)
	before := node.current(w)
	w.write("node-web-1.key", issue(w, w.ca, identity.Node, "web-1", time.Now(), time.Hour).Key)
	for range 5 {
		node.source.Look()
	}
	m, err := node.source.Current()
	if m != before || err == nil || !strings.Contains(err.Error(), "does not match") {
		t.Errorf("got %v, %v, want the certificate before and why the new one is not in force", m, err)
	}
	if _, failures := node.source.Stats(); failures != 1 {
		t.Errorf("counted %d failures, want 1", failures)
	}
	if got := strings.Count(node.log.String(), "not renewed"); got != 1 {
		t.Errorf("logged %d times, want 1:\n%s", got, node.log)
	}
	if faults := node.source.Faults(time.Now()); len(faults) != 1 || !strings.Contains(faults[0], "Remedy: ") {
		t.Errorf("got faults %q", faults)
	}
	w.must(os.Remove(cfg.CertFile))
	node.source.Look()
	node.source.Look()
	if m, _ := node.source.Current(); m != before {
		t.Error("without the file the certificate is gone")
	}
	w.issued(identity.Node, "web-1")
	node.source.Look()
	if m, err := node.source.Current(); m == before || err != nil {
		t.Errorf("got %v, want the new certificate in force", err)
	}
	if faults := node.source.Faults(time.Now()); len(faults) > 0 {
		t.Errorf("got faults %q", faults)
	}
}

func TestAuthoritiesAreReloaded(t *testing.T) {
	w := newWorld(t)
	server := serve(w, w.issued(identity.Server, "127.0.0.1"))
	next := w.newAuthority(domain)
	w.store("next", issue(w, next, identity.Node, "web-1", time.Now(), time.Hour))
	node := client(w, w.config("next"))
	if err := node.call(w, server.address); err == nil {
		t.Fatal("a node of a CA that the server does not know connects")
	}
	w.write("ca.crt", append(w.pairOf(w.ca).Certificate, w.pairOf(next).Certificate...))
	server.source.Look()
	w.must(node.call(w, server.address))
	w.write("ca.crt", w.pairOf(next).Certificate)
	server.source.Look()
	w.must(os.Remove(w.path("ca.crt"))) // the node has the old one in force
	w.must(node.call(w, server.address))
}

// TestRunTakesUpNewFiles: what Look does, in its time.
func TestRunTakesUpNewFiles(t *testing.T) {
	w := newWorld(t)
	node := client(w, w.issued(identity.Node, "web-1"))
	before := node.current(w)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- node.source.Run(ctx) }()
	w.issued(identity.Node, "web-1")
	node.log.await(t, "certificate that is new", func() bool { m, _ := node.source.Current(); return m != before })
	cancel()
	w.must(<-done)
}

func TestExpiryIsToldInTime(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	w.store("node", issue(w, w.ca, identity.Node, "web-1", now, 90*24*time.Hour))
	node := client(w, w.config("node"))
	day := func(n int) time.Time { return now.AddDate(0, 0, n) }
	for at, want := range map[int]string{0: "", 60: "", 73: "in 17 days", 89: "in 24 hours", 91: "has expired"} {
		faults := node.source.Faults(day(at).Add(-time.Minute))
		if want == "" && len(faults) == 0 {
			continue
		}
		if len(faults) != 1 || !strings.Contains(faults[0], want) || !strings.Contains(faults[0], "Remedy: renew it") {
			t.Errorf("after %d days: got %q, want %q", at, faults, want)
		}
	}
	for _, at := range []int{60, 73, 74, 75, 91, 92} {
		transport.SayExpiry(node.source, day(at))
	}
	if got := strings.Count(node.log.String(), "certificate ends"); got != 2 {
		t.Errorf("logged %d times, want once that it ends and once that it has:\n%s", got, node.log)
	}
	// The CA lives for ten years, and is told of ninety days before.
	if faults := node.source.Faults(day(3650 - 89)); len(faults) != 2 || !strings.Contains(faults[1], "the CA CN=Nameward CA of example.org ends at") {
		t.Errorf("got %q", faults)
	}
}

func TestValidate(t *testing.T) {
	full := transport.Config{CertFile: "a", KeyFile: "b", CAFile: "c"}
	for name, c := range map[string]struct {
		cfg      transport.Config
		insecure bool
		want     string
	}{
		"plain text":                        {transport.Config{}, true, ""},
		"files":                             {full, false, ""},
		"a Workload API":                    {transport.Config{SPIFFESocket: "/s"}, false, ""},
		"the alias of a server's flag":      {transport.Config{CertFile: "a", KeyFile: "b", CAAlias: "c"}, false, ""},
		"both names, one file":              {transport.Config{CertFile: "a", KeyFile: "b", CAFile: "c", CAAlias: "c"}, false, ""},
		"nothing says what to set":          {transport.Config{}, false, "tls-cert: must be set, with --tls-key and --server-ca, or else --spiffe-socket"},
		"plain text, and files":             {full, true, "insecure: there are certificates too"},
		"half a pair":                       {transport.Config{CertFile: "a", CAFile: "c"}, false, "tls-key: must be set"},
		"files and a Workload API":          {transport.Config{CertFile: "a", SPIFFESocket: "/s"}, false, "spiffe-socket: certificates come from it or from"},
		"two files for the same":            {transport.Config{CertFile: "a", KeyFile: "b", CAFile: "c", CAAlias: "d"}, false, "server-ca: is"},
		"a trust domain that cannot be one": {transport.Config{SPIFFESocket: "/s", TrustDomain: "Example"}, false, "trust-domain: not an identity"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			c.cfg.ValidateClient(c.insecure, func(flag string, err error) { got = append(got, flag+": "+err.Error()) })
			if text := strings.Join(got, "\n"); c.want == "" && text != "" || !strings.Contains(text, c.want) {
				t.Errorf("got %q, want %q", text, c.want)
			}
		})
	}
}
