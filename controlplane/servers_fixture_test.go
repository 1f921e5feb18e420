package controlplane_test

import (
	"context"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/nameward/nameward/controlplane"
	"github.com/nameward/nameward/e2e/cluster"
)

// startEtcd runs one etcd until the test ends.
func startEtcd(t testing.TB) *cluster.Etcd {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
			t.Fatal("this test needs etcd")
		}
		t.Skip("this test needs etcd")
	}
	places, err := cluster.Here(1)
	if err != nil {
		t.Fatal(err)
	}
	e, err := cluster.StartEtcd(t.Context(), t.TempDir(), places)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Kill() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := e.Await(ctx); err != nil {
		t.Fatal(err)
	}
	return e
}

// startOn runs a server on an etcd.
func startOn(t testing.TB, e *cluster.Etcd, configure ...func(*controlplane.Config)) *server {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	return startWith(t, t.TempDir(), func(c *controlplane.Config) {
		c.Store, c.EtcdEndpoints, c.Listen = "etcd", e.Endpoints(), address
		for _, configure := range configure {
			configure(c)
		}
	})
}

// fresh asks for what all servers have acknowledged.
func fresh(t testing.TB) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "nameward-fresh", "1")
}
