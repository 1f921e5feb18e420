package e2e_test

import (
	"net/netip"
	"os"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestAgentDeath: with the agent killed, enforcement and learning go on; what was learned meanwhile is
// reported after its return, and nothing that still is valid has been forgotten.
func TestAgentDeath(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		f.put(clientPolicy("*.fresh.example", "api.example"))
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "api.example") })
		before := f.opened(t, "api.example")

		f.must(f.agent.Kill())
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			for i := range 20 {
				f.expectOpen(t, resolver, lab.FreshName(i))
			}
			f.expectRefused(t, resolver, "evil.example")
		})
		f.expectStillOpen(t, before)

		f.startAgent()
		f.expectStillOpen(t, before)
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			f.expectRefused(t, resolver, "evil.example")
			f.expectOpen(t, resolver, lab.FreshName(21))
		})
		for _, domain := range []string{"api.example", lab.FreshName(3), "evil.example"} {
			f.awaitMapping(domain)
		}
		// A change of policy after the return knows the names that were resolved before.
		f.put(clientPolicy("evil.example"))
		f.expectStillOpen(t, f.opened(t, "evil.example"))
	})
}

// opened returns the addresses of a name without asking from the client: asking would learn them anew.
func (f *fleet) opened(t *testing.T, name string) []netip.Addr {
	t.Helper()
	var all []netip.Addr
	for _, resolver := range f.Resolvers() {
		addresses, err := f.World.Resolve(resolver, name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, addresses...)
	}
	return all
}

// expectStillOpen connects without asking again.
func (f *fleet) expectStillOpen(t *testing.T, addresses []netip.Addr) {
	t.Helper()
	for _, address := range addresses {
		if err := f.Connect(address, lab.ServicePort); err != nil {
			t.Errorf("connect to %s, resolved before: %v", address, err)
		}
	}
}

// awaitMapping waits until the server knows a mapping of the name.
func (f *fleet) awaitMapping(name string) []*namewardv1.Mapping {
	f.t.Helper()
	var mappings []*namewardv1.Mapping
	f.must(lab.Await(f.t.Context(), func() error {
		response, err := namewardv1.NewObservationServiceClient(f.conn).ListMappings(f.t.Context(), &namewardv1.ListMappingsRequest{
			Filter: &namewardv1.MappingFilter{Domain: name, Node: "nodes/" + lab.NodeName},
		})
		if err != nil {
			return err
		}
		if mappings = response.GetMappings(); len(mappings) == 0 {
			return os.ErrNotExist
		}
		return nil
	}, nil))
	return mappings
}
