package e2e_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// setPolicy lets the client reach, on the service port, the names that domain sets match.
func setPolicy(sets ...string) *namewardv1.Policy {
	policy := clientPolicy()
	policy.Rules[0].DomainSets = sets
	return policy
}

func (f *fleet) sets() namewardv1.DomainSetServiceClient {
	return namewardv1.NewDomainSetServiceClient(f.conn)
}

// putSet makes or replaces a domain set, and waits until the node has it in force.
func (f *fleet) putSet(name string, domains ...string) {
	f.t.Helper()
	stream, err := f.sets().ReplaceDomains(f.t.Context())
	f.must(err)
	request := &namewardv1.ReplaceDomainsRequest{Name: name, AllowMissing: true}
	f.must(stream.Send(request))
	for part := range slices.Chunk(domains, 10_000) {
		f.must(stream.Send(&namewardv1.ReplaceDomainsRequest{Domains: part}))
	}
	_, err = stream.CloseAndRecv()
	f.must(err)
	f.awaitCurrent()
}

func (f *fleet) addDomains(name string, domains ...string) {
	f.t.Helper()
	_, err := f.sets().AddDomains(f.t.Context(), &namewardv1.AddDomainsRequest{Name: name, Domains: domains})
	f.must(err)
	f.awaitCurrent()
}

func (f *fleet) removeDomains(name string, domains ...string) {
	f.t.Helper()
	_, err := f.sets().RemoveDomains(f.t.Context(), &namewardv1.RemoveDomainsRequest{Name: name, Domains: domains})
	f.must(err)
	f.awaitCurrent()
}

// apply lets namewardctl apply a document.
func (f *fleet) apply(document string) string {
	f.t.Helper()
	file := filepath.Join(f.Dir, "document.yaml")
	f.must(os.WriteFile(file, []byte(document), 0o600))
	out, err := f.command(f.t.Context(), f.Program("namewardctl"), "--server", lab.ServerAddress, "--insecure", "apply", "-f", file)
	if err != nil {
		f.t.Fatalf("namewardctl: %v\n%s", err, out)
	}
	f.awaitCurrent()
	return out
}

// expect fails the test unless an address opens, or is refused at once.
func (f *fleet) expect(t *testing.T, from *lab.Namespace, address netip.Addr, opens bool, when string) {
	t.Helper()
	switch err := from.Connect(address, lab.ServicePort); {
	case opens && err != nil:
		t.Errorf("%s: %s: got %v, want it open", when, address, err)
	case !opens && !lab.Refused(err):
		t.Errorf("%s: %s: got %v, want it refused", when, address, err)
	}
}

// TestDomainSet: a set opens its names and no others. What is added to it opens at once, also an address that
// was resolved before; what is removed closes.
func TestDomainSet(t *testing.T) {
	f := newFleet(t)
	out := f.apply(`
name: policies/client
workloads: [{cidrs: [` + lab.ClientV4.String() + `, "` + lab.ClientV6.String() + `"]}]
rules: [{action: ALLOW, domainSets: [domainSets/saas], ports: [{protocol: TCP, port: ` + fmt.Sprint(lab.ServicePort) + `}]}]
---
name: domainSets/saas
domains: [api.example, "*.shop.example"]
`)
	if out != "domainSets/saas created\npolicies/client created\n" {
		t.Fatalf("namewardctl printed %q", out)
	}
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "api.example")
		f.expectOpen(t, resolver, "www.shop.example")
		f.expectRefused(t, resolver, "shop.example")
		late, evil := f.learn(t, resolver, "late.example"), f.learn(t, resolver, "evil.example")
		f.expect(t, f.Client, late, false, "in no set")

		f.addDomains("domainSets/saas", "late.example", "ev*.example")
		f.expect(t, f.Client, late, true, "added after it was resolved")
		f.expect(t, f.Client, evil, true, "added as a general pattern")
		f.expectOpen(t, resolver, "api.example")
		f.removeDomains("domainSets/saas", "late.example", "ev*.example")
		f.expect(t, f.Client, late, false, "removed")
		f.expect(t, f.Client, evil, false, "removed as a general pattern")
		f.expectOpen(t, resolver, "api.example")
	})
	api := f.learn(t, lab.ResolverV4, "api.example")
	if out := f.apply("name: domainSets/saas\ndomains: [late.example]\n"); out != "domainSets/saas configured\n" {
		t.Errorf("namewardctl printed %q", out)
	}
	f.expect(t, f.Client, api, false, "replaced by another name")
	f.expectOpen(t, lab.ResolverV4, "late.example")
	f.apply("name: domainSets/saas\n")
	f.expectRefused(t, lab.ResolverV4, "late.example")

	out, err := f.command(t.Context(), f.Program("namewardctl"), "--server", lab.ServerAddress, "--insecure", "delete", "domainSets/saas")
	if err == nil || !strings.Contains(out, "policies/client: names it in rules[0]") {
		t.Errorf("deletion of a set that is named: %v, %q, want it refused and by whom it is named", err, out)
	}
}

// TestDomainSetIsShared: policies of different workloads name one set, beside domains of their own; the set
// changes for all of them.
func TestDomainSetIsShared(t *testing.T) {
	f := newFleet(t)
	f.putSet("domainSets/shared", "api.example")
	client, host := setPolicy("domainSets/shared"), setPolicy("domainSets/shared")
	client.Rules[0].Domains = []string{"shop.example"}
	host.Name, host.Workloads = "policies/host", []*namewardv1.Workload{{Host: true}}
	f.put(client)
	f.put(host)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		api, late, shop := f.learn(t, resolver, "api.example"), f.learn(t, resolver, "late.example"), f.learn(t, resolver, "shop.example")
		for _, from := range []*lab.Namespace{f.Client, f.Node} {
			f.expect(t, from, api, true, "a name of the set")
			f.expect(t, from, late, false, "no name of the set")
			f.expect(t, from, shop, from == f.Client, "a name of the client's policy alone")
		}
		f.addDomains("domainSets/shared", "late.example")
		for _, from := range []*lab.Namespace{f.Client, f.Node} {
			f.expect(t, from, late, true, "added")
			f.expect(t, from, shop, from == f.Client, "a name of the client's policy alone")
		}
		f.removeDomains("domainSets/shared", "late.example")
		for _, from := range []*lab.Namespace{f.Client, f.Node} {
			f.expect(t, from, api, true, "a name that stayed")
			f.expect(t, from, late, false, "removed")
		}
	})
}

// TestDomainSetsInOrder: of the rules that match a name by their sets the first decides, about connections and
// about questions.
func TestDomainSetsInOrder(t *testing.T) {
	f := newFleet(t)
	f.putSet("domainSets/bad", "evil.example", "*.shop.example")
	f.putSet("domainSets/all", "*.example")
	f.putSet("domainSets/unasked", "tracker.shop.example")
	policy := setPolicy("domainSets/all")
	policy.Rules = append([]*namewardv1.Rule{
		{Action: namewardv1.Rule_DENY, DomainSets: []string{"domainSets/unasked"}, QueryAction: namewardv1.Rule_REFUSE},
		{Action: namewardv1.Rule_DENY, DomainSets: []string{"domainSets/bad"}},
	}, policy.Rules...)
	f.put(policy)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "api.example")
		f.expectRefused(t, resolver, "evil.example")
		f.expectRefused(t, resolver, "www.shop.example")
		if addresses, err := f.Resolve(resolver, "tracker.shop.example"); err == nil {
			t.Errorf("tracker.shop.example resolves to %v, want the question refused", addresses)
		}
		api, evil := f.learn(t, resolver, "api.example"), f.learn(t, resolver, "evil.example")
		f.removeDomains("domainSets/bad", "evil.example")
		f.addDomains("domainSets/bad", "api.example")
		f.removeDomains("domainSets/unasked", "tracker.shop.example")
		f.expect(t, f.Client, evil, true, "no longer denied")
		f.expect(t, f.Client, api, false, "denied since")
		f.expectRefused(t, resolver, "tracker.shop.example")
		f.addDomains("domainSets/bad", "evil.example")
		f.removeDomains("domainSets/bad", "api.example")
		f.addDomains("domainSets/unasked", "tracker.shop.example")
		f.expect(t, f.Client, evil, false, "denied again")
		f.expect(t, f.Client, api, true, "no longer denied")
	})
}

// TestLargeDomainSet: a set of 100,000 domains changes by one of them, while connections to its other names
// are made and none is refused.
func TestLargeDomainSet(t *testing.T) {
	f := newFleet(t)
	domains := []string{"api.example"}
	for i := range 99_999 {
		domains = append(domains, fmt.Sprintf("n%05d.fresh.example", i))
	}
	f.putSet("domainSets/large", domains...)
	f.put(setPolicy("domainSets/large"))
	late := f.learn(t, lab.ResolverV4, "late.example")
	f.expect(t, f.Client, late, false, "in no set")
	ctx, stop := context.WithCancel(t.Context())
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	group.Go(func() { f.reachFresh(ctx, t, 10_001, 1_900) })
	for i := range 10 {
		began := time.Now()
		f.addDomains("domainSets/large", "late.example")
		added := time.Since(began)
		f.expect(t, f.Client, late, true, "added")
		began = time.Now()
		f.removeDomains("domainSets/large", "late.example")
		t.Logf("in force: added after %v, removed after %v", added, time.Since(began))
		f.expect(t, f.Client, late, false, "removed")
		f.expectOpen(t, lab.ResolverV4, lab.FreshName(i*1000))
		f.expectOpen(t, lab.ResolverV6, "api.example")
	}
	stop()
	group.Wait()
	f.putSet("domainSets/large", domains[1:]...)
	f.expectRefused(t, lab.ResolverV4, "api.example")
	f.expectOpen(t, lab.ResolverV4, lab.FreshName(11_999))
}

// reachFresh resolves and reaches fresh names, one after the other, until ctx ends: none may be refused.
func (f *fleet) reachFresh(ctx context.Context, t *testing.T, first, count int) {
	reached := 0
	for ctx.Err() == nil {
		name := lab.FreshName(first + reached%count)
		addresses, err := f.Resolve(lab.ResolverV4, name)
		if err == nil {
			err = f.Connect(addresses[0], lab.ServicePort)
		}
		if err != nil {
			t.Errorf("reach %s while its set changes: %v", name, err)
			return
		}
		reached++
	}
	t.Logf("%d fresh names were reached meanwhile", reached)
}

// TestDomainSetAtTheLimit: a node holds as many domains as the server lets it have, also when many of them change
// at once, and back.
func TestDomainSetAtTheLimit(t *testing.T) {
	f := newFleet(t)
	// A quarter more than the limit has room, for the names of two rule sets at once.
	const limit, room = 131_072, 30_000
	domains := make([]string, limit+room)
	for i := range domains {
		domains[i] = fmt.Sprintf("n%06d.fresh.example", i)
	}
	domains[0], domains[limit+room-1] = "api.example", "late.example"
	first, second := domains[:limit], domains[room:]
	f.putSet("domainSets/full", first...)
	f.put(setPolicy("domainSets/full"))
	for range 2 {
		f.expectOpen(t, lab.ResolverV4, "api.example")
		f.expectRefused(t, lab.ResolverV4, "late.example")
		f.putSet("domainSets/full", second...)
		f.expectRefused(t, lab.ResolverV4, "api.example")
		f.expectOpen(t, lab.ResolverV4, "late.example")
		f.putSet("domainSets/full", first...)
	}
}

// TestDomainSetOutlivesServerAndAgent: with the server gone and the kernel's state too, a set is enforced from
// the node's disk; the server's restart loses nothing of it.
func TestDomainSetOutlivesServerAndAgent(t *testing.T) {
	f := newFleet(t)
	f.putSet("domainSets/kept", "*.fresh.example")
	f.put(setPolicy("domainSets/kept"))
	f.addDomains("domainSets/kept", "api.example")
	f.must(f.server.Kill())
	f.must(f.agent.Kill())
	f.must(f.ForgetKernelState(t.Context()))
	agent, err := f.StartAgentAlone(t.Context())
	f.must(err)
	f.agent = agent
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, lab.FreshName(1))
		f.expectOpen(t, resolver, "api.example")
		f.expectRefused(t, resolver, "evil.example")
	})
	f.startServer()
	f.awaitCurrent()
	evil := f.learn(t, lab.ResolverV4, "evil.example")
	f.addDomains("domainSets/kept", "evil.example")
	f.expect(t, f.Client, evil, true, "added after both were gone")
	got, err := f.sets().GetDomainSet(t.Context(), &namewardv1.GetDomainSetRequest{Name: "domainSets/kept"})
	f.must(err)
	if want := []string{"*.fresh.example", "api.example", "evil.example"}; !slices.Equal(got.GetDomains(), want) {
		t.Errorf("the set has %v, want %v", got.GetDomains(), want)
	}
}
