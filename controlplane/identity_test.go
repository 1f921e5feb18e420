package controlplane_test

import (
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/authority/authoritytest"
	"github.com/nameward/nameward/api/identity"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/controlplane"
)

// secured is a server that is reached by mutual TLS alone.
type secured struct {
	*server
	files *authoritytest.Files
}

func startSecured(t *testing.T) *secured {
	t.Helper()
	files := authoritytest.New(t)
	s := &secured{files: files}
	s.server = startWith(t, t.TempDir(), func(cfg *controlplane.Config) {
		cfg.Insecure, cfg.TLS = false, files.Issue(identity.Server, "127.0.0.1")
	})
	s.nodes = namewardv1.NewNodeServiceClient(s.dial(files.Issue(identity.Admin, "ada")))
	return s
}

// dial makes a connection of somebody.
func (s *secured) dial(cfg transport.Config) *grpc.ClientConn {
	s.t.Helper()
	log := slog.New(slog.DiscardHandler)
	source := transport.NewClientSource(cfg, log)
	if err := source.Load(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
	conn, err := grpc.NewClient(s.connection.Target(), grpc.WithTransportCredentials(transport.NewClientCredentials(source, transport.NewRefusals(log))))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// scrape returns the metrics, as text.
func (s *server) scrape() string {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + s.metrics + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// TestANodeSpeaksForItselfAlone: whoever says another node than its certificate hears both names, and the node that it
// meant is not touched.
func TestANodeSpeaksForItselfAlone(t *testing.T) {
	s := startSecured(t)
	own := newAgent(t, "web-1", nil)
	own.connect(s.dial(s.files.Issue(identity.Node, "web-1")))
	connected := func(status *namewardv1.NodeStatus) bool { return status.GetConnected() }
	expiry := s.status("web-1", connected).GetCertificateExpireTime()
	if left := time.Until(expiry.AsTime()); left < 50*time.Minute || left > time.Hour {
		t.Errorf("the node's certificate ends at %v, want in an hour", expiry.AsTime())
	}
	for who, cfg := range map[string]transport.Config{
		"spiffe://nameward/node/web-2": s.files.Issue(identity.Node, "web-2"),
		"spiffe://nameward/admin/ada":  s.files.Issue(identity.Admin, "ada"),
	} {
		other := newAgent(t, "web-1", nil)
		other.connect(s.dial(cfg))
		err := <-other.ended
		if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), who) {
			t.Errorf("%s as web-1: got %v, want PermissionDenied that names it", who, err)
		}
		if strings.HasPrefix(who, "spiffe://nameward/node/") && !strings.Contains(err.Error(), "web-1") {
			t.Errorf("%s as web-1: got %v, want both names", who, err)
		}
	}
	if !s.status("web-1", connected).GetConnected() {
		t.Error("the node was driven out")
	}
	// Where the caller's role is looked at before, the admin does not come so far.
	if page := s.scrape(); strings.Contains(page, "nameward_server_node_identities_refused_total 0\n") {
		t.Error("the refusals are not counted")
	}
}

// TestExpiryOfNodesIsKnown: an agent that renewed its certificate says so on the stream that it has.
func TestExpiryOfNodesIsKnown(t *testing.T) {
	s := startSecured(t)
	first, second := newAgent(t, "web-1", nil), newAgent(t, "web-2", nil)
	first.connect(s.dial(s.files.IssueAt(identity.Node, "web-1", time.Now(), 10*time.Minute)))
	second.connect(s.dial(s.files.Issue(identity.Node, "web-2")))
	soon := s.status("web-1", func(status *namewardv1.NodeStatus) bool { return status.GetCertificateExpireTime() != nil })
	later := s.status("web-2", func(status *namewardv1.NodeStatus) bool { return status.GetCertificateExpireTime() != nil })
	expect := func(at *timestamppb.Timestamp) {
		t.Helper()
		want := "nameward_server_node_certificate_expiry_timestamp_seconds " + strconv.FormatFloat(float64(at.GetSeconds()), 'g', -1, 64) + "\n"
		if page := s.scrape(); !strings.Contains(page, want) {
			t.Errorf("want %s in\n%s", want, page)
		}
	}
	expect(soon.GetCertificateExpireTime())
	renewed := timestamppb.New(time.Unix(time.Now().Add(24*time.Hour).Unix(), 0))
	first.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: &agentv1.StatusReport{CertificateExpireTime: renewed}}})
	s.status("web-1", func(status *namewardv1.NodeStatus) bool {
		return status.GetCertificateExpireTime().AsTime().Equal(renewed.AsTime())
	})
	expect(later.GetCertificateExpireTime())
	for _, metric := range []string{"nameward_server_certificate_expiry_timestamp_seconds 1.", "nameward_server_ca_expiry_timestamp_seconds 2."} {
		if !strings.Contains(s.scrape(), metric) {
			t.Errorf("no %s…", metric)
		}
	}
}

// TestNothingWithoutCertificates: a server that has none does not start, and says what it lacks.
func TestNothingWithoutCertificates(t *testing.T) {
	cfg := controlplane.DefaultConfig()
	cfg.Listen, cfg.MetricsListen, cfg.DataDir = "127.0.0.1:0", "", t.TempDir()
	cfg.TLS = transport.Config{CertFile: "/absent.crt", KeyFile: "/absent.key", CAFile: "/absent-ca.crt"}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	err := controlplane.Run(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "load certificates: read /absent.crt and its key /absent.key") {
		t.Errorf("got %v", err)
	}
}
