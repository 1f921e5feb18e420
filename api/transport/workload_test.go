package transport_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/api/authority"
	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/transport"
)

// workloadAPI is a SPIFFE Workload API: it pushes one identity, and the next when there is one.
type workloadAPI struct {
	workload.UnimplementedSpiffeWorkloadAPIServer
	socket    string
	responses chan *workload.X509SVIDResponse // has the newest
	server    *grpc.Server
}

func startWorkloadAPI(w *world, socket string) *workloadAPI {
	w.Helper()
	api := &workloadAPI{socket: socket, responses: make(chan *workload.X509SVIDResponse, 10)}
	listener, err := net.Listen("unix", socket)
	w.must(err)
	api.server = grpc.NewServer()
	workload.RegisterSpiffeWorkloadAPIServer(api.server, api)
	done := make(chan error, 1)
	go func() { done <- api.server.Serve(listener) }()
	w.Cleanup(func() {
		api.server.Stop()
		<-done
	})
	return api
}

// FetchX509SVID implements the Workload API: only for those who say that they mean it.
func (a *workloadAPI) FetchX509SVID(_ *workload.X509SVIDRequest, stream workload.SpiffeWorkloadAPI_FetchX509SVIDServer) error {
	if headers, _ := metadata.FromIncomingContext(stream.Context()); len(headers.Get("workload.spiffe.io")) == 0 {
		return status.Error(codes.InvalidArgument, "security header missing")
	}
	for {
		select {
		case <-stream.Context().Done():
			return nil
		case response := <-a.responses:
			if err := stream.Send(response); err != nil {
				return err
			}
		}
	}
}

// svid puts an identity into the form of the API.
func (w *world) svid(ca *authority.Authority, pair authority.Pair) *workload.X509SVIDResponse {
	w.Helper()
	loaded, err := tls.X509KeyPair(pair.Certificate, pair.Key)
	w.must(err)
	key, err := x509.MarshalPKCS8PrivateKey(loaded.PrivateKey)
	w.must(err)
	root, _ := pem.Decode(w.pairOf(ca).Certificate)
	return &workload.X509SVIDResponse{Svids: []*workload.X509SVID{{
		SpiffeId: loaded.Leaf.URIs[0].String(), X509Svid: loaded.Certificate[0], X509SvidKey: key, Bundle: root.Bytes,
	}}}
}

func socketPath(t *testing.T) string {
	t.Helper()
	// A socket's path has room for about a hundred bytes.
	dir, err := os.MkdirTemp("", "spiffe")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "agent.sock")
}

func TestWorkloadAPI(t *testing.T) {
	w := newWorld(t)
	// As SVIDs usually are: good for no host name.
	api := startWorkloadAPI(w, socketPath(t))
	first := w.crafted(func(template *x509.Certificate) {
		withURI("spiffe://example.org/server/policy")(template)
		template.IPAddresses = nil
	})
	api.responses <- w.svid(w.ca, first)
	server := serve(w, transport.Config{SPIFFESocket: api.socket})
	own := startWorkloadAPI(w, socketPath(t))
	own.responses <- w.svid(w.ca, issue(w, w.ca, identity.Node, "web-1", time.Now(), time.Hour))
	node := client(w, transport.Config{SPIFFESocket: own.socket})
	w.must(node.call(w, server.address))
	if caller := <-server.callers; caller.ID.String() != "spiffe://example.org/node/web-1" {
		t.Errorf("got caller %s", caller.ID)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- node.source.Run(ctx) }()
	before := node.current(w)
	own.responses <- w.svid(w.ca, issue(w, w.ca, identity.Node, "web-1", time.Now(), time.Hour))
	node.log.await(t, "the next certificate", func() bool { m, _ := node.source.Current(); return m != before })
	w.must(node.call(w, server.address))

	// Without the API what is in force stays, and the fault is told; with it all is well again.
	renewed := node.current(w)
	own.server.Stop()
	node.log.await(t, "the fault", func() bool { _, err := node.source.Current(); return err != nil })
	if m, _ := node.source.Current(); m != renewed {
		t.Error("the certificate is gone with the API")
	}
	if faults := node.source.Faults(time.Now()); len(faults) != 1 || !strings.Contains(faults[0], own.socket) {
		t.Errorf("got faults %q", faults)
	}
	again := startWorkloadAPI(w, own.socket)
	again.responses <- w.svid(w.ca, issue(w, w.ca, identity.Node, "web-1", time.Now(), time.Hour))
	node.log.await(t, "the end of the fault", func() bool { _, err := node.source.Current(); return err == nil })
	cancel()
	w.must(<-done)
}

// TestWorkloadAPIDecidesByIdentity: where no host name is looked at, the SPIFFE ID must be that of a server.
func TestWorkloadAPIDecidesByIdentity(t *testing.T) {
	w := newWorld(t)
	w.store("rogue", w.crafted(withURI("spiffe://example.org/node/web-2")))
	api := startWorkloadAPI(w, socketPath(t))
	api.responses <- w.svid(w.ca, issue(w, w.ca, identity.Node, "web-1", time.Now(), time.Hour))
	node := client(w, transport.Config{SPIFFESocket: api.socket})
	rogue := &end{callers: make(chan transport.Caller, 1)}
	rogue.listen(w, rogueCredentials(w, "rogue"))
	refusal{"who answers is no server: its certificate is of spiffe://example.org/node/web-2", "", transport.PeerIdentity, ""}.
		judge(t, node.call(w, rogue.address), node, nil)
	// And of a CA that the API says.
	w.store("foreign", issue(w, w.newAuthority(domain), identity.Server, "127.0.0.1", time.Now(), time.Hour))
	foreign := &end{callers: make(chan transport.Caller, 1)}
	foreign.listen(w, rogueCredentials(w, "foreign"))
	refusal{"is of a CA that is not trusted here", "", transport.PeerUnknown, ""}.judge(t, node.call(w, foreign.address), node, nil)
}

func TestNoWorkloadAPI(t *testing.T) {
	socket := socketPath(t)
	err := transport.NewClientSource(transport.Config{SPIFFESocket: socket}, discard()).Load(t.Context())
	if err == nil || !strings.Contains(err.Error(), "SPIFFE Workload API at "+socket) {
		t.Errorf("got %v", err)
	}
}
