package e2e_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestGrpcurl: a policy that grpcurl creates, with no proto files, is in force within 200 ms.
func TestGrpcurl(t *testing.T) {
	f := newFleetAlone(t, "it measures a time")
	grpcurl, err := filepath.Abs("../.bin/grpcurl")
	f.must(err)
	if _, err := os.Stat(grpcurl); err != nil {
		t.Fatalf("grpcurl is not installed (make tools-grpcurl): %v", err)
	}
	f.put(clientPolicy("api.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		address := f.learn(t, resolver, "late.example")
		if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
			t.Fatalf("before the policy: got %v, want refused", err)
		}
		id := map[bool]string{true: "late-four", false: "late-six"}[resolver.Is4()]
		request := `{"policy_id": "` + id + `", "policy": {"workloads": [{"cidrs": ["10.91.1.2", "fd91:1::2"]}],
			"rules": [{"action": "ALLOW", "domains": ["late.example"]}]}}`
		out, err := f.command(t.Context(), grpcurl, "-plaintext", "-d", request, lab.ServerAddress, "nameward.v1.PolicyService/CreatePolicy")
		acknowledged := time.Now()
		if err != nil {
			t.Fatalf("grpcurl: %v\n%s", err, out)
		}
		// The name is not asked again: a new policy takes effect on names that were resolved before.
		f.must(lab.Await(t.Context(), func() error { return f.Connect(address, lab.ServicePort) }, nil))
		took := time.Since(acknowledged)
		t.Logf("in force %v after grpcurl's end", took)
		if took > 200*time.Millisecond {
			t.Errorf("in force %v after the acknowledgement, want at most 200 ms", took)
		}
		out, err = f.command(t.Context(), grpcurl, "-plaintext", "-d", `{"name": "policies/`+id+`"}`, lab.ServerAddress, "nameward.v1.PolicyService/DeletePolicy")
		if err != nil {
			t.Fatalf("grpcurl: %v\n%s", err, out)
		}
		f.awaitCurrent() // the next family begins without it
	})
}

// learn resolves a name from the client and returns its first address.
func (f *fleet) learn(t *testing.T, resolver netip.Addr, name string) netip.Addr {
	t.Helper()
	addresses, err := f.Resolve(resolver, name)
	if err != nil {
		t.Fatalf("resolve %s: %v", name, err)
	}
	return addresses[0]
}

// TestAtomicChange changes the policy over and over while connections are made. The names that both
// versions allow are never refused, and those that neither allows never pass.
func TestAtomicChange(t *testing.T) {
	f := newFleet(t)
	versions := []*namewardv1.Policy{
		clientPolicy("api.example", "*.shop.example"),
		clientPolicy("late.example", "*.example"),
	}
	versions[1].Rules = append([]*namewardv1.Rule{{Action: namewardv1.Rule_DENY, Domains: []string{"evil.example"}}}, versions[1].Rules...)
	f.put(versions[0])
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	var connections atomic.Int64
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			resolver := f.Resolvers()[i%2]
			f.expectOpen(t, resolver, "api.example")
			f.expectOpen(t, resolver, "www.shop.example")
			f.expectRefused(t, resolver, "evil.example")
			connections.Add(3)
		}
	}()
	const changes = 100
	for i := range changes {
		f.put(versions[(i+1)%2])
	}
	stop()
	<-done
	t.Logf("%d connections during %d changes", connections.Load(), changes)
}
