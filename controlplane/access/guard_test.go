package access_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/nameward/nameward/api/identity"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/access"
)

// Every method that is registered is in the table, and nothing else; and over real connections with real certificates
// each role may call exactly what the table says.
func TestEachRoleMayCallWhatTheTableSays(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	callers := map[identity.Role]*grpc.ClientConn{}
	for _, role := range identity.Roles() {
		callers[role] = s.as(t, "spiffe://test/"+string(role)+"/x")
	}
	callers[""] = s.as(t, "spiffe://test/ns/prod/sa/x")
	needs := access.Methods()
	for name, service := range s.info {
		for _, m := range service.Methods {
			method := "/" + name + "/" + m.Name
			need, listed := needs[method]
			if !listed {
				t.Errorf("%s is registered and has no role", method)
			}
			delete(needs, method)
			for role, connection := range callers {
				err := call(t.Context(), connection, method, m.IsClientStream || m.IsServerStream)
				denied := status.Code(err) == codes.PermissionDenied
				if denied == may(role, need) {
					t.Errorf("%q calls %s, which needs %q: %v", role, method, need, err)
				}
				if !denied {
					continue
				}
				info := infoOf(t, err)
				if info.GetReason() != "ROLE_REQUIRED" || info.GetMetadata()["role"] != string(role) || info.GetMetadata()["required_role"] != string(need) ||
					info.GetMetadata()["method"] != method || !strings.HasPrefix(info.GetMetadata()["identity"], "spiffe://test/") {
					t.Errorf("%q denied %s: %v", role, method, info)
				}
			}
		}
	}
	for method := range needs {
		t.Errorf("%s has a role and is not registered", method)
	}
}

// may is the table of roles, said again in other words.
func may(role, need identity.Role) bool {
	switch need {
	case "":
		return true
	case identity.Viewer:
		return role == identity.Viewer || role == identity.Editor || role == identity.Admin
	case identity.Editor:
		return role == identity.Editor || role == identity.Admin
	default:
		return role == need
	}
}

func infoOf(t *testing.T, err error) *errdetails.ErrorInfo {
	t.Helper()
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok {
			return info
		}
	}
	t.Fatalf("%v has no ErrorInfo", err)
	return nil
}

func TestDeniedIsTheMessageThatSaysWhatIsNeeded(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	err := call(t.Context(), s.as(t, "spiffe://test/viewer/wall"), "/nameward.v1.PolicyService/DeletePolicy", false)
	const want = "spiffe://test/viewer/wall has the role viewer, and /nameward.v1.PolicyService/DeletePolicy needs the role editor or one above it"
	if status.Convert(err).Message() != want {
		t.Errorf("got %q", status.Convert(err).Message())
	}
}

// A call is judged by its headers: what follows of it is not read into memory.
func TestDeniedRequestsAreNotReceived(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	node := s.as(t, "spiffe://test/node/n")
	large := &namewardv1.CreatePolicyRequest{PolicyId: strings.Repeat("x", 32<<20)}
	_, err := namewardv1.NewPolicyServiceClient(node).CreatePolicy(t.Context(), large)
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
	if _, was := s.received.Load("/nameward.v1.PolicyService/CreatePolicy"); was {
		t.Error("the request was received")
	}
}

func TestUnlistedMethodsAreRefused(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	for _, connection := range []*grpc.ClientConn{s.as(t, "spiffe://test/admin/a")} {
		err := call(t.Context(), connection, "/nameward.v1.PolicyService/NoSuch", false)
		if status.Code(err) != codes.Unimplemented || infoOf(t, err).GetReason() != "UNKNOWN_METHOD" {
			t.Errorf("got %v", err)
		}
	}
	plain := serve(t, access.ByConvention(), false)
	err := call(t.Context(), plain.dial(t, insecure.NewCredentials()), "/nameward.v1.PolicyService/NoSuch", false)
	if status.Code(err) != codes.Unimplemented || infoOf(t, err).GetReason() != "UNKNOWN_METHOD" {
		t.Errorf("anonymous: got %v", err)
	}
}

func TestWithoutTLSEverybodyMayDoEverything(t *testing.T) {
	s := serve(t, access.ByConvention(), false)
	connection := s.dial(t, insecure.NewCredentials())
	for _, method := range []string{"/nameward.v1.PolicyService/DeletePolicy", "/nameward.v1.AuditService/ListAuditEvents", "/nameward.v1.NodeService/DeleteNode"} {
		if err := call(t.Context(), connection, method, false); status.Code(err) != codes.Unimplemented || len(status.Convert(err).Details()) > 0 {
			t.Errorf("%s: %v", method, err)
		}
	}
}

// A guard of a server with TLS does not take a connection without it for one of a caller who may do everything.
func TestPlainTextIsNobodyWhereTLSIsWanted(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	for _, ctx := range []context.Context{t.Context()} {
		if _, err := s.guard.Unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/nameward.v1.PolicyService/GetPolicy"}, nil); status.Code(err) != codes.Unauthenticated {
			t.Errorf("without a peer: %v", err)
		}
	}
	plain := serve(t, access.ByConvention(), true, grpc.Creds(insecure.NewCredentials()))
	err := call(t.Context(), plain.dial(t, insecure.NewCredentials()), "/nameward.v1.PolicyService/GetPolicy", false)
	if status.Code(err) != codes.Unauthenticated || infoOf(t, err).GetReason() != "UNKNOWN_CALLER" {
		t.Errorf("got %v", err)
	}
}

// Whoever has a certificate that names nobody is told so.
func TestCertificateThatNamesNobody(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	for _, uris := range [][]string{nil, {"spiffe://test/admin/a", "spiffe://test/admin/b"}, {"https://test/admin/a"}} {
		err := call(t.Context(), s.dial(t, s.client(s.issue(t, uris...))), "/grpc.health.v1.Health/Check", false)
		if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "certificate names nobody") {
			t.Errorf("%v: got %v", uris, err)
		}
	}
}

func TestDenialsAreCountedAndToldWithinLimits(t *testing.T) {
	s := serve(t, access.ByConvention(), true)
	node := s.as(t, "spiffe://test/node/n")
	for range 500 {
		if err := call(t.Context(), node, "/nameward.v1.PolicyService/DeletePolicy", false); status.Code(err) != codes.PermissionDenied {
			t.Fatal(err)
		}
		if err := call(t.Context(), node, "/nameward.v1.PolicyService/ListPolicies", false); status.Code(err) != codes.PermissionDenied {
			t.Fatal(err)
		}
	}
	if got := s.denied.all(); len(got) != 2 || got[0] != "spiffe://test/node/n /nameward.v1.PolicyService/DeletePolicy 1" {
		t.Errorf("told: %q", got)
	}
	if change, read := sample(t, s.guard, "nameward_server_calls_denied_total", "change"), sample(t, s.guard, "nameward_server_calls_denied_total", "read"); change != 500 || read != 500 {
		t.Errorf("counted: %v and %v", change, read)
	}
	if untold := sample(t, s.guard, "nameward_server_calls_denied_untold_total", ""); untold != 998 {
		t.Errorf("untold: %v", untold)
	}
}

// sample returns the sum of a metric's samples that have the value for a label.
func sample(t *testing.T, guard *access.Guard, name, label string) (sum float64) {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(guard.Collectors()...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			has := label == ""
			for _, pair := range m.GetLabel() {
				has = has || pair.GetValue() == label
			}
			if family.GetName() == name && has {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

func TestRolesFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roles.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("- {id: spiffe://test/ns/prod/sa/ci, role: editor}\n- {id: spiffe://test/ns/prod/*, role: viewer}\n- {id: 'dns:web-1.example', role: node}\n")
	roles, err := access.RolesFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	of := func(text string) identity.Role {
		t.Helper()
		id, err := identity.ParseID(text)
		if err != nil {
			t.Fatal(err)
		}
		return roles.Of(id)
	}
	for id, want := range map[string]identity.Role{
		"spiffe://test/ns/prod/sa/ci":     identity.Editor, // the first match decides
		"spiffe://test/ns/prod/sa/other":  identity.Viewer,
		"spiffe://test/ns/prod/a/b/c":     identity.Viewer,
		"spiffe://test/ns/production/sa":  "", // a star ends no word
		"spiffe://other/ns/prod/sa/other": "",
		"spiffe://test/admin/ada":         "", // with a file, the convention gives nothing
		"dns:web-1.example":               identity.Node,
		"dns:web-2.example":               "",
	} {
		if got := of(id); got != want {
			t.Errorf("%s: got %q, want %q", id, got, want)
		}
	}
	write("- {id: spiffe://test/ns/prod/sa/ci, role: admin}\n")
	roles.Reload()
	if got := of("spiffe://test/ns/prod/sa/ci"); got != identity.Admin {
		t.Errorf("after a reload: %q", got)
	}
	for name, bad := range map[string]string{
		"no YAML": "{", "no list": "a: b", "empty": "", "an unknown role": "- {id: spiffe://test/a, role: root}", "no id": "- {role: admin}",
		"a star in a name": "- {id: spiffe://test/a*, role: admin}", "everybody": "- {id: '*', role: admin}", "an unknown field": "- {id: spiffe://test/a, role: admin, roles: b}",
		"a name without a trust domain": "- {id: ada, role: admin}", "a DNS name that is no node": "- {id: 'dns:a.example', role: admin}", "DNS names that are no nodes": "- {id: 'dns:*', role: viewer}", "dns with a star": "- {id: 'dns:a.example/*', role: node}",
	} {
		write(bad)
		roles.Reload()
		if got := of("spiffe://test/ns/prod/sa/ci"); got != identity.Admin {
			t.Errorf("%s: took away the role: %q", name, got)
		}
		if _, err := access.RolesFile(path, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: is taken at the start", name)
		}
	}
	write("- {id: 'dns:*', role: node}\n")
	roles.Reload()
	if got := of("dns:web-7.example"); got != identity.Node || of("spiffe://test/ns/prod/sa/ci") != "" {
		t.Errorf("all DNS names: %q", got)
	}
	write("- {id: spiffe://test/ns/prod/sa/ci, role: admin}\n")
	roles.Reload()
	write("- {id: spiffe://test/*, role: viewer}\n")
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	roles.Reload()
	if got := of("spiffe://test/ns/prod/sa/ci"); got != identity.Admin {
		t.Errorf("a file that everybody may write was taken: %q", got)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	roles.Reload()
	if got := of("spiffe://test/ns/prod/sa/ci"); got != identity.Viewer {
		t.Errorf("after it was mended: %q", got)
	}
}

// A role that was taken away counts from the next call on, on connections that are open too.
func TestRolesAreTakenAwayFromOpenConnections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roles.yaml")
	if err := os.WriteFile(path, []byte("- {id: spiffe://test/x, role: editor}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	roles, err := access.RolesFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, roles, true)
	connection := s.as(t, "spiffe://test/x")
	const method = "/nameward.v1.PolicyService/UpdatePolicy"
	if err := call(t.Context(), connection, method, false); status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("- {id: spiffe://test/x, role: viewer}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	roles.Reload()
	if err := call(t.Context(), connection, method, false); status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
}

// A stream that was begun with a role ends when it is taken away.
func TestStreamsEndWithTheirRole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "roles.yaml")
	if err := os.WriteFile(path, []byte("- {id: spiffe://test/n, role: node}\n- {id: spiffe://test/m, role: node}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	roles, err := access.RolesFile(path, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, roles, true)
	open := func(id string) grpc.ClientStream {
		stream, err := s.as(t, id).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/nameward.agent.v1.SyncService/Sync")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Header(); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	loses, keeps := open("spiffe://test/n"), open("spiffe://test/m")
	if err := os.WriteFile(path, []byte("- {id: spiffe://test/m, role: node}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	roles.Reload()
	err = loses.RecvMsg(&emptypb.Empty{})
	if status.Code(err) != codes.PermissionDenied || infoOf(t, err).GetReason() != "ROLE_REQUIRED" {
		t.Errorf("got %v", err)
	}
	if err := streamEnd(keeps); err != nil {
		t.Errorf("a stream that may go on ended: %v", err)
	}
}
