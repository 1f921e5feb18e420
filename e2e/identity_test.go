package e2e_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/nameward/nameward/api/authority"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/e2e/lab"
)

// remoteServer is where the policy server listens: on another machine than the node.
var remoteServer = net.JoinHostPort(lab.ResolverV4.String(), "7443")

// secureFleet is a fleet whose server is in the world, and whose programs know each other by certificates of a CA that
// namewardctl made.
type secureFleet struct {
	*fleet
	pki string
}

func newSecureFleet(t *testing.T) *secureFleet {
	t.Helper()
	l := newLab(t)
	f := &secureFleet{fleet: &fleet{Lab: l, t: t}, pki: filepath.Join(l.Dir, "pki")}
	f.issue("init")
	f.issue("issue", "--role", "server", "--name", lab.ResolverV4.String())
	f.issue("issue", "--role", "node", "--name", lab.NodeName)
	f.issue("issue", "--role", "admin", "--name", "ada")
	var err error
	f.server, err = l.Start(t.Context(), l.World, "nameward-server", l.Program("nameward-server"), append(f.tlsFlags(f.pki, "server-"+lab.ResolverV4.String()),
		"--listen", remoteServer, "--data-dir", filepath.Join(l.Dir, "server"))...)
	f.must(err)
	f.conn = f.dial("admin-ada")
	f.must(lab.Await(t.Context(), func() error {
		_, err := namewardv1.NewPolicyServiceClient(f.conn).ListPolicies(t.Context(), &namewardv1.ListPoliciesRequest{})
		return err
	}, f.server.Exited()))
	return f
}

// issue runs namewardctl pki.
func (f *secureFleet) issue(args ...string) {
	f.t.Helper()
	f.issueInto(f.pki, args...)
}

func (f *secureFleet) issueInto(dir string, args ...string) {
	f.t.Helper()
	out, err := f.command(f.t.Context(), f.Program("namewardctl"), append(append([]string{"pki"}, args...), "--dir", dir)...)
	if err != nil {
		f.t.Fatalf("pki %v: %v\n%s", args, err, out)
	}
}

// tlsFlags are those of any of the programs.
func (f *secureFleet) tlsFlags(dir, name string) []string {
	return []string{"--tls-cert", filepath.Join(dir, name+".crt"), "--tls-key", filepath.Join(dir, name+".key"), "--client-ca", filepath.Join(f.pki, "ca.crt")}
}

// credentials are those of a client in this process.
func (f *secureFleet) credentials(name string) credentials.TransportCredentials {
	f.t.Helper()
	log := slog.New(slog.DiscardHandler)
	source := transport.NewClientSource(transport.Config{
		CertFile: filepath.Join(f.pki, name+".crt"), KeyFile: filepath.Join(f.pki, name+".key"), CAFile: filepath.Join(f.pki, "ca.crt"),
	}, log)
	f.must(source.Load(f.t.Context()))
	return transport.NewClientCredentials(source, transport.NewRefusals(log))
}

// dial connects from the node.
func (f *secureFleet) dial(name string) *grpc.ClientConn {
	f.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+remoteServer, grpc.WithTransportCredentials(f.credentials(name)),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			return f.Node.Dial("tcp", remoteServer, 5*time.Second)
		}))
	f.must(err)
	f.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// startSecureAgent starts the agent, and does not wait for a server.
func (f *secureFleet) startSecureAgent(dir, name string, flags ...string) {
	f.t.Helper()
	args := append([]string{
		"--server", remoteServer, "--label", "role=lab",
		"--state-dir", filepath.Join(f.Dir, "agent"), "--bpf-dir", f.BPFDir, "--socket", f.Socket(),
		"--trusted-resolver", lab.ResolverV4.String(), "--trusted-resolver", lab.ResolverV6.String(),
	}, f.tlsFlags(dir, name)...)
	var err error
	f.agent, err = f.Start(f.t.Context(), f.Node, "nameward-agent", f.Agent, append(args, flags...)...)
	f.must(err)
}

// ctl runs namewardctl on the node, against the server.
func (f *secureFleet) ctl(name string, args ...string) (string, error) {
	return f.command(f.t.Context(), f.Program("namewardctl"), append(append(args, "--server", remoteServer), f.tlsFlags(f.pki, name)...)...)
}

// awaitDegraded waits until the agent says a fault.
func (f *secureFleet) awaitDegraded(t *testing.T, says string) {
	t.Helper()
	conn, err := f.DialAgent()
	f.must(err)
	defer conn.Close() //nolint:errcheck // read only
	f.must(lab.Await(t.Context(), func() error {
		status, err := agentv1.NewLocalServiceClient(conn).GetStatus(t.Context(), &agentv1.GetStatusRequest{})
		if err != nil {
			return err
		}
		if text := strings.Join(status.GetDegraded(), "\n"); !strings.Contains(text, says) {
			return fmt.Errorf("degraded: %q, want %q", text, says)
		}
		return nil
	}, f.agent.Exited()))
}

func (f *secureFleet) awaitServerLog(t *testing.T, says ...string) {
	t.Helper()
	f.must(lab.Await(t.Context(), func() error {
		for _, text := range says {
			if !strings.Contains(f.server.ReadLog(), text) {
				return fmt.Errorf("the server's log has no %q", text)
			}
		}
		return nil
	}, f.server.Exited()))
}

// TestMutualTLS: server, agent and operator on two machines, with certificates as `namewardctl pki` makes them. The node
// is called as its certificate says. Whoever should not connect is refused, both ends say why, and the node enforces on.
func TestMutualTLS(t *testing.T) {
	f := newSecureFleet(t)
	f.startSecureAgent(f.pki, "node-"+lab.NodeName)
	f.awaitCurrent()
	f.put(clientPolicy("*.fresh.example"))
	f.expectOpen(t, lab.ResolverV4, lab.FreshName(1))
	f.expectRefused(t, lab.ResolverV4, "evil.example")
	f.awaitMapping(lab.FreshName(1))
	if out, err := f.ctl("admin-ada", "get", "nodes", "-o", "wide"); err != nil || !strings.Contains(out, "CERTIFICATE") || !strings.Contains(out, "89d23h") {
		t.Errorf("get nodes: %v\n%s", err, out)
	}

	t.Run("operators", f.refusedOperators)
	for fact, c := range map[string]struct {
		prepare       func() (dir, name string)
		flags         []string
		agent, server string
	}{
		"of a foreign CA": {func() (string, string) {
			foreign := filepath.Join(f.Dir, "foreign")
			f.issueInto(foreign, "init")
			f.issueInto(foreign, "issue", "--role", "node", "--name", lab.NodeName)
			return foreign, "node-" + lab.NodeName
		}, nil, "the server refused the certificate of this program: it is of a CA that the server does not trust", "reason=peer_unknown_authority"},
		"expired": {func() (string, string) {
			f.issue("issue", "--role", "node", "--name", "late", "--lifetime", "1s")
			f.must(f.awaitExpiry("node-late"))
			return f.pki, "node-late"
		}, []string{"--node-name", "late"}, "the server refused the certificate of this program: it has expired", "reason=peer_expired"},
		"of another node": {func() (string, string) {
			f.issue("issue", "--role", "node", "--name", "other")
			return f.pki, "node-other"
		}, []string{"--node-name", lab.NodeName}, "the certificate is of spiffe://nameward/node/other, and the hello of node lab", "spiffe://nameward/node/other"},
	} {
		t.Run(fact, func(t *testing.T) {
			f.must(f.agent.Stop())
			dir, name := c.prepare()
			f.startSecureAgent(dir, name, c.flags...)
			f.awaitDegraded(t, c.agent)
			f.awaitServerLog(t, c.server)
			f.expectOpen(t, lab.ResolverV4, lab.FreshName(2))
			f.expectRefused(t, lab.ResolverV4, "evil.example")
			if !strings.Contains(f.agent.ReadLog(), c.agent) {
				t.Errorf("the agent's log does not say %q", c.agent)
			}
		})
	}
	f.must(f.agent.Stop())
	f.startSecureAgent(f.pki, "node-"+lab.NodeName)
	f.awaitCurrent()
}

// awaitExpiry waits until a certificate has ended.
func (f *secureFleet) awaitExpiry(name string) error {
	pair, err := tls.LoadX509KeyPair(filepath.Join(f.pki, name+".crt"), filepath.Join(f.pki, name+".key"))
	if err != nil {
		return err
	}
	return lab.Await(f.t.Context(), func() error {
		if left := time.Until(pair.Leaf.NotAfter); left >= 0 {
			return fmt.Errorf("it ends in %v", left)
		}
		return nil
	}, nil)
}

// refusedOperators: what namewardctl says.
func (f *secureFleet) refusedOperators(t *testing.T) {
	f.issue("issue", "--role", "admin", "--name", "late", "--lifetime", "1s")
	f.must(f.awaitExpiry("admin-late"))
	if out, err := f.ctl("admin-late", "get", "nodes"); err == nil || !strings.Contains(out, "the server refused the certificate of this program: it has expired") {
		t.Errorf("with an expired certificate: %v\n%s", err, out)
	}
	if out, err := f.ctl("admin-ada", "get", "nodes", "--tls-server-name", "elsewhere"); err == nil || !strings.Contains(out, "certificate is not for elsewhere") {
		t.Errorf("of another host: %v\n%s", err, out)
	}
	out, err := f.command(t.Context(), f.Program("namewardctl"), "get", "nodes", "--server", remoteServer)
	if err == nil || !strings.Contains(out, "--tls-cert: must be set") {
		t.Errorf("without a certificate: %v\n%s", err, out)
	}
	out, err = f.command(t.Context(), f.Program("namewardctl"), "get", "nodes", "--server", remoteServer, "--insecure")
	if err == nil || !strings.Contains(out, "is no loopback address") {
		t.Errorf("in plain text: %v\n%s", err, out)
	}
}

// certificateInForce returns the serial number that the server shows on a new connection.
func (f *secureFleet) certificateInForce() (string, error) {
	conn := f.dial("admin-ada")
	defer conn.Close() //nolint:errcheck // asked once
	var who peer.Peer
	ctx, cancel := context.WithTimeout(f.t.Context(), 20*time.Second)
	defer cancel()
	if _, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&who)); err != nil {
		return "", err
	}
	return who.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0].SerialNumber.String(), nil
}

// awaitCertificate waits until new connections have the certificate of the server's file.
func (f *secureFleet) awaitCertificate(t *testing.T) {
	t.Helper()
	name := "server-" + lab.ResolverV4.String()
	pair, err := tls.LoadX509KeyPair(filepath.Join(f.pki, name+".crt"), filepath.Join(f.pki, name+".key"))
	f.must(err)
	f.must(lab.Await(t.Context(), func() error {
		got, err := f.certificateInForce()
		if err == nil && got != pair.Leaf.SerialNumber.String() {
			err = errors.New("new connections have the certificate before")
		}
		return err
	}, f.server.Exited()))
}

// TestCertificatesAreRenewedUnderLoad: certificates of all are renewed again and again while policies change and an agent
// and a watch are connected. No stream ends, new connections have the new certificates, and those that were made with a
// certificate that ends meanwhile go on.
func TestCertificatesAreRenewedUnderLoad(t *testing.T) {
	f := newSecureFleet(t)
	f.startSecureAgent(f.pki, "node-"+lab.NodeName)
	f.awaitCurrent()
	since := f.agentState(t).GetConnectionChangeTime().AsTime()

	// The watch is between certificates that end soon.
	renew := func(lifetime string) {
		t.Helper()
		f.issue("renew", "--all", "--force", "--lifetime", lifetime)
		f.awaitCertificate(t)
	}
	renew("20s")
	watch, err := namewardv1.NewPolicyServiceClient(f.dial("admin-ada")).WatchPolicies(t.Context(), &namewardv1.WatchPoliciesRequest{})
	f.must(err)
	changes := make(chan string, 10_000)
	ended := make(chan error, 1)
	go func() {
		for {
			change, err := watch.Recv()
			if err != nil {
				ended <- err
				return
			}
			changes <- change.GetPolicy().GetDescription()
		}
	}()

	ctx, stop := context.WithCancel(t.Context())
	load := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			policy := clientPolicy("*.fresh.example")
			policy.Description = fmt.Sprint(i)
			_, err := namewardv1.NewPolicyServiceClient(f.conn).UpdatePolicy(ctx, &namewardv1.UpdatePolicyRequest{Policy: policy, UpdateMask: allFields, AllowMissing: true})
			if ctx.Err() != nil {
				load <- nil
				return
			}
			if err != nil {
				load <- err
				return
			}
		}
	}()
	ending := "server-" + lab.ResolverV4.String()
	old, err := os.ReadFile(filepath.Join(f.pki, ending+".crt"))
	f.must(err)
	until, err := expiryOf(old)
	f.must(err)
	for range 3 {
		renew("1h")
	}
	f.must(lab.Await(t.Context(), func() error {
		if left := time.Until(until); left >= 0 {
			return fmt.Errorf("it ends in %v", left)
		}
		return nil
	}, nil))
	// Broken files change nothing.
	f.must(os.WriteFile(filepath.Join(f.pki, ending+".crt"), []byte("nothing"), 0o600))
	f.awaitServerLog(t, "certificate not renewed, the one before stays in force")
	_, err = f.certificateInForce()
	f.must(err)
	stop()
	f.must(<-load)

	f.put(clientPolicy("evil.example"))
	f.expectOpen(t, lab.ResolverV4, "evil.example")
	last := clientPolicy("evil.example")
	last.Description = "last"
	f.put(last)
	for description := ""; description != "last"; {
		select {
		case description = <-changes:
		case err := <-ended:
			t.Fatalf("the watch ended: %v", err)
		case <-time.After(lab.Patience):
			t.Fatal("the watch does not see the last change")
		}
	}
	if now := f.agentState(t).GetConnectionChangeTime().AsTime(); !now.Equal(since) {
		t.Errorf("the agent's stream was made anew at %v, first at %v", now, since)
	}
	// The agent's next stream is made with what it renewed.
	expiry := f.agentState(t).GetNode().GetStatus().GetCertificateExpireTime().AsTime()
	if left := time.Until(expiry); left < 30*time.Minute {
		t.Errorf("the agent's certificate ends in %v, want about an hour", left)
	}
}

// expiryOf returns when a certificate ends.
func expiryOf(text []byte) (time.Time, error) {
	certificate, err := authority.ParseCertificate(text)
	if err != nil {
		return time.Time{}, err
	}
	return certificate.NotAfter, nil
}
