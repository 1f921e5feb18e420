package e2e_test

import (
	"net/netip"
	"testing"

	"google.golang.org/protobuf/proto"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestServerDeath: with the server killed the agent keeps enforcing, also over a restart of its own, and
// the server's restart loses no policy.
func TestServerDeath(t *testing.T) {
	f := newFleet(t)
	want := f.put(clientPolicy("*.fresh.example"))
	f.must(f.server.Kill())
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, lab.FreshName(1))
		f.expectRefused(t, resolver, "evil.example")
	})

	f.must(f.agent.Kill())
	agent, err := f.StartAgentAlone(t.Context())
	f.must(err)
	f.agent = agent
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, lab.FreshName(2))
		f.expectRefused(t, resolver, "evil.example")
	})

	f.startServer()
	got, err := namewardv1.NewPolicyServiceClient(f.conn).GetPolicy(t.Context(), &namewardv1.GetPolicyRequest{Name: want.GetName()})
	f.must(err)
	if !proto.Equal(got, want) {
		t.Errorf("policy after the restart: got %v, want %v", got, want)
	}
	f.awaitCurrent()
	f.awaitMapping(lab.FreshName(1))
	f.put(clientPolicy("evil.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "evil.example") })
}

// TestRuleSetSurvivesReboot: all kernel state gone, disk kept: the last rule set is enforced from disk
// before the first contact with a server.
func TestRuleSetSurvivesReboot(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("*.fresh.example"))
	f.must(f.server.Kill())
	f.must(f.agent.Kill())
	f.must(f.ForgetKernelState(t.Context()))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "evil.example") })

	_, err := f.StartAgentAlone(t.Context())
	f.must(err)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, lab.FreshName(2))
		f.expectRefused(t, resolver, "evil.example")
	})
}
