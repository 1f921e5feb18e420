package main

import (
	"bytes"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/nameward/nameward/api/authority"
	"github.com/nameward/nameward/api/identity"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/transport"
)

// runIt runs namewardctl and returns what it printed on both outputs.
func runIt(t *testing.T, args ...string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	code := Run(t.Context(), args, strings.NewReader(""), &out, &out)
	return out.String(), code
}

// issued makes certificates as an operator does, and returns their directory.
func issued(t *testing.T, issues ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "pki")
	for _, args := range append([]string{"init"}, issues...) {
		if out, code := runIt(t, append([]string{"pki"}, strings.Fields(args+" --dir "+dir)...)...); code != 0 {
			t.Fatalf("pki %s: %s", args, out)
		}
	}
	return dir
}

// expired makes a certificate whose life is over.
func expired(t *testing.T, dir, name string) {
	t.Helper()
	ca, err := readAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	request := authority.Request{Role: identity.Admin, Name: name, Lifetime: time.Hour}
	pair, _, err := ca.Issue(request, time.Now().Add(-2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if err := writeNew(pairPaths(dir, request.FileName()), pair); err != nil {
		t.Fatal(err)
	}
}

// serveTLS starts the services with the certificates of a directory.
func serveTLS(t *testing.T, dir string) (address string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	source := transport.NewServerSource(transport.Config{
		CertFile: filepath.Join(dir, "server-127.0.0.1.crt"), KeyFile: filepath.Join(dir, "server-127.0.0.1.key"), CAFile: filepath.Join(dir, "ca.crt"),
	}, log)
	if err := source.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(transport.NewServerCredentials(source, transport.NewRefusals(log))))
	namewardv1.RegisterPolicyServiceServer(server, &policyService{fleet: newFleet(time.Now())})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return listener.Addr().String()
}

func TestMutualTLS(t *testing.T) {
	dir := issued(t, "issue --role server --name 127.0.0.1", "issue --role admin --name ada")
	expired(t, dir, "late")
	foreign := issued(t, "issue --role admin --name ada")
	address := serveTLS(t, dir)
	get := func(dir, name string, more ...string) (string, int) {
		t.Helper()
		return runIt(t, append([]string{
			"get", "policies", "--server", address, "--tls-cert", filepath.Join(dir, name+".crt"), "--tls-key", filepath.Join(dir, name+".key"),
		}, more...)...)
	}
	// By the name that the flag has on a server, too.
	for _, flag := range []string{"--server-ca", "--client-ca"} {
		if out, code := get(dir, "admin-ada", flag, filepath.Join(dir, "ca.crt")); code != 0 || !strings.Contains(out, "No policies.") {
			t.Errorf("%s: exit code %d: %s", flag, code, out)
		}
	}
	for want, c := range map[string]struct {
		dir, name, ca string
		more          []string
	}{
		"the server refused the certificate of this program: it has expired":                            {dir, "admin-late", dir, nil},
		"the server refused the certificate of this program: it is of a CA that the server does not":    {foreign, "admin-ada", dir, nil},
		"the server's certificate is of a CA that is not trusted here":                                  {dir, "admin-ada", foreign, nil},
		"the server's certificate is not for policy, which was connected to, but for localhost, 127.0.": {dir, "admin-ada", dir, []string{"--tls-server-name", "policy"}},
	} {
		out, code := get(c.dir, c.name, append(c.more, "--server-ca", filepath.Join(c.ca, "ca.crt"))...)
		if code != 1 || !strings.Contains(out, "namewardctl: the policy server at "+address+" cannot be reached: "+want) {
			t.Errorf("exit code %d: got %q, want %q", code, out, want)
		}
	}
	want := "does not permit this: this server speaks TLS, and the client plain text: leave out --insecure"
	if out, code := runIt(t, "get", "policies", "--server", address, "--insecure"); code != 1 || !strings.Contains(out, want) {
		t.Errorf("exit code %d: got %q, want %q", code, out, want)
	}
	// A server in plain text.
	plain := newFleet(time.Now()).serve(t, filepath.Join(t.TempDir(), "agent.sock"))
	address = plain
	want = "the server does not speak TLS on this port"
	if out, code := get(dir, "admin-ada", "--server-ca", filepath.Join(dir, "ca.crt")); code != 1 || !strings.Contains(out, want) {
		t.Errorf("exit code %d: got %q, want %q", code, out, want)
	}
}
