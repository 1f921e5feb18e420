package dataplane

import (
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/nameward/nameward/api/authority/authoritytest"
	"github.com/nameward/nameward/api/identity"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/dataplane/preflight"
)

// startSecured is startServer with certificates.
func startSecured(t *testing.T, rules *ruleset.RuleSet, cfg transport.Config) (string, *syncServer) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	source := transport.NewServerSource(cfg, log)
	if err := source.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &syncServer{rules: rules, requests: make(chan *agentv1.SyncRequest, 100)}
	server := grpc.NewServer(grpc.Creds(transport.NewServerCredentials(source, transport.NewRefusals(log))))
	agentv1.RegisterSyncServiceServer(server, s)
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return listener.Addr().String(), s
}

func securedConfig(t *testing.T, server string, tls transport.Config) Config {
	t.Helper()
	cfg := testConfig(t, server)
	cfg.Insecure, cfg.TLS = false, tls
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

// TestAgentWithCertificates: it says when its certificate ends, upstream, on its socket and as metrics.
func TestAgentWithCertificates(t *testing.T) {
	files := authoritytest.New(t)
	address, server := startSecured(t, someRules(), files.Issue(identity.Server, "127.0.0.1"))
	cfg := securedConfig(t, address, files.Issue(identity.Node, "lab"))
	startAgent(t, cfg, newFakeNode())
	server.await(t, "ack of revision 7", func(r *agentv1.SyncRequest) bool { return r.GetAck().GetRevision() == 7 })
	server.await(t, "expiry of the certificate", func(r *agentv1.SyncRequest) bool {
		left := time.Until(r.GetStatus().GetCertificateExpireTime().AsTime())
		return left > 50*time.Minute && left < time.Hour
	})
	status, err := localClient(t, cfg).GetStatus(t.Context(), &agentv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if status.GetNode().GetStatus().GetCertificateExpireTime() == nil || len(status.GetDegraded()) > 0 {
		t.Errorf("got %v", status)
	}
	for _, metric := range []string{"nameward_agent_certificate_expiry_timestamp_seconds 1.", "nameward_agent_ca_expiry_timestamp_seconds 2.", "nameward_agent_certificate_loads_total 1\n"} {
		if page := scrape(t, cfg); !strings.Contains(page, metric) {
			t.Errorf("no %s in\n%s", metric, page)
		}
	}
}

// TestAgentWithoutGoodCertificates: what it has on disk is enforced, and what it lacks is said, with a remedy.
func TestAgentWithoutGoodCertificates(t *testing.T) {
	now := time.Now()
	for name, c := range map[string]struct {
		tls    func(files *authoritytest.Files) transport.Config
		want   []string
		metric string
	}{
		"no files": {func(files *authoritytest.Files) transport.Config {
			cfg := files.Issue(identity.Node, "lab")
			if err := os.Remove(cfg.KeyFile); err != nil {
				panic(err)
			}
			return cfg
		}, []string{"no certificate: read ", "this program has no certificate to connect with"}, `connections_refused_total{reason="own_missing"}`},
		"an expired one": {func(files *authoritytest.Files) transport.Config {
			return files.IssueAt(identity.Node, "lab", now.Add(-2*time.Hour), time.Hour)
		}, []string{"the server refused the certificate of this program: it has expired", "the certificate of spiffe://nameward/node/lab has expired, at "}, `connections_refused_total{reason="own_expired"}`},
		"one that ends soon": {func(files *authoritytest.Files) transport.Config {
			return files.IssueAt(identity.Node, "lab", now.Add(-90*time.Minute), 100*time.Minute)
		}, []string{"the certificate of spiffe://nameward/node/lab ends at "}, "certificate_expiry_timestamp_seconds"},
		"that of another node": {func(files *authoritytest.Files) transport.Config {
			return files.Issue(identity.Node, "web-1")
		}, []string{"it is of spiffe://nameward/node/web-1, and the node is lab"}, "certificate_expiry_timestamp_seconds"},
		"one of a foreign CA": {func(files *authoritytest.Files) transport.Config {
			foreign := authoritytest.New(files.T()).Issue(identity.Node, "lab")
			foreign.CAFile = files.Issue(identity.Node, "lab").CAFile
			return foreign
		}, []string{"the server refused the certificate of this program: it is of a CA that the server does not trust"}, `connections_refused_total{reason="own_unknown_authority"}`},
	} {
		t.Run(name, func(t *testing.T) {
			files := authoritytest.New(t)
			address, _ := startSecured(t, someRules(), files.Issue(identity.Server, "127.0.0.1"))
			cfg, n := securedConfig(t, address, c.tls(files)), newFakeNode()
			startAgent(t, cfg, n)
			for _, want := range c.want {
				expectDegraded(t, cfg, want)
			}
			if page := scrape(t, cfg); !strings.Contains(page, "nameward_agent_"+c.metric) || strings.Contains(page, "nameward_agent_"+c.metric+" 0\n") {
				t.Errorf("no %s in\n%s", c.metric, page)
			}
			if !n.hooks.Stand() {
				t.Error("the rules do not stand")
			}
		})
	}
}

func TestCheckCertificates(t *testing.T) {
	now := time.Now()
	files := authoritytest.New(t)
	for name, c := range map[string]struct {
		tls    transport.Config
		level  preflight.Level
		detail string
	}{
		"good":            {files.Issue(identity.Node, "lab"), preflight.OK, "of spiffe://nameward/node/lab, until "},
		"of another node": {files.Issue(identity.Node, "web-1"), preflight.Failed, "of spiffe://nameward/node/web-1"},
		"of an admin":     {files.Issue(identity.Admin, "lab"), preflight.Failed, "of spiffe://nameward/admin/lab"},
		"expired":         {authoritytest.New(t).IssueAt(identity.Node, "lab", now.Add(-2*time.Hour), time.Hour), preflight.Failed, "it has expired"},
		"ending":          {authoritytest.New(t).IssueAt(identity.Node, "lab", now.Add(-59*time.Minute), time.Hour), preflight.Warning, "it ends soon"},
		"not yet good":    {authoritytest.New(t).IssueAt(identity.Node, "lab", now.Add(time.Hour), time.Hour), preflight.Failed, "but not before"},
		"unreadable":      {transport.Config{CertFile: "/absent", KeyFile: "/absent", CAFile: "/absent"}, preflight.Failed, "open /absent"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := securedConfig(t, "127.0.0.1:1", c.tls)
			got := checkCertificates(t.Context(), cfg, now)[0]
			if got.Name != "certificate" || got.Level != c.level || !strings.Contains(got.Detail, c.detail) || (got.Remedy == "") != (c.level == preflight.OK) {
				t.Errorf("got %+v, want %s, %q", got, c.level, c.detail)
			}
		})
	}
	foreign := files.Issue(identity.Node, "lab")
	foreign.CAFile = authoritytest.New(t).Issue(identity.Node, "lab").CAFile
	if err := os.Chmod(foreign.KeyFile, 0o640); err != nil {
		t.Fatal(err)
	}
	got := checkCertificates(t.Context(), securedConfig(t, "127.0.0.1:1", foreign), now)
	if len(got) != 3 || got[1].Level != preflight.Warning || !strings.Contains(got[1].Detail, "is of another CA") {
		t.Errorf("a CA that is not its own: got %+v", got)
	}
	if got[2].Level != preflight.Warning || !strings.Contains(got[2].Remedy, "chmod 600") {
		t.Errorf("a key that others may read: got %+v", got)
	}
}

func TestPlainTextIsForLoopbackAlone(t *testing.T) {
	for server, valid := range map[string]bool{"127.0.0.1:7443": true, "localhost:7443": true, "[::1]:7443": true, "192.0.2.1:7443": false, "policy.example.org:7443": false} {
		cfg := testConfig(t, "127.0.0.1:1")
		cfg.Servers = []string{server}
		if err := cfg.Validate(); (err == nil) != valid {
			t.Errorf("%s: %v, want valid %t", server, err, valid)
		}
	}
}

func TestNodeNameOfTheCertificate(t *testing.T) {
	files := authoritytest.New(t)
	cfg := Config{TLS: files.Issue(identity.Node, "web-1")}
	if name, err := cfg.CertifiedNodeName(t.Context()); name != "web-1" || err != nil {
		t.Errorf("got %q, %v", name, err)
	}
	if name, err := (Config{Insecure: true}).CertifiedNodeName(t.Context()); name != "" || err != nil {
		t.Errorf("in plain text: got %q, %v", name, err)
	}
}
