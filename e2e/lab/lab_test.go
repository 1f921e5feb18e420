package lab_test

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/nameward/nameward/e2e/lab"
)

func TestLab(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	l, err := lab.New(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		for _, ns := range []*lab.Namespace{l.Client, l.Node, l.World} {
			if _, err := os.Stat("/run/netns/" + ns.Name); err == nil {
				t.Errorf("namespace %s is left", ns.Name)
			}
		}
	})
	for _, name := range []string{"api.example", "www.shop.example", lab.FreshName(7), lab.FreshName(lab.FreshNames - 1), "any.wild.example"} {
		for _, server := range l.Resolvers() {
			addresses, err := l.Resolve(server, name)
			if err != nil {
				t.Fatalf("resolve %s at %s: %v", name, server, err)
			}
			if err := l.Connect(addresses[0], lab.ServicePort); err != nil {
				t.Errorf("connect to %s (%s): %v", addresses[0], name, err)
			}
		}
	}
	start := time.Now()
	if err := l.Connect(addresses(t, l)[0], 9999); !lab.Refused(err) {
		t.Errorf("a port without a service: got %v after %v, want refused", err, time.Since(start))
	}
}

func addresses(t *testing.T, l *lab.Lab) (found []netip.Addr) {
	t.Helper()
	found, err := l.Resolve(lab.ResolverV4, "api.example")
	if err != nil {
		t.Fatal(err)
	}
	return found
}
