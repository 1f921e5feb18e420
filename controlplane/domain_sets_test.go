package controlplane_test

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// putNaming makes or replaces a policy for the nodes of a role that allows what sets match.
func (s *server) putNaming(id, role string, sets ...string) {
	s.t.Helper()
	p := &namewardv1.Policy{
		Name:  "policies/" + id,
		Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, DomainSets: sets}},
	}
	if role != "" {
		p.NodeSelector = &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": role}}
	}
	if _, err := s.policies.UpdatePolicy(s.t.Context(), &namewardv1.UpdatePolicyRequest{Policy: p, AllowMissing: true}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) add(set string, domains ...string) {
	s.t.Helper()
	if _, err := s.sets.AddDomains(s.t.Context(), &namewardv1.AddDomainsRequest{Name: set, Domains: domains}); err != nil {
		s.t.Fatal(err)
	}
}

// changesOf returns the changes of responses.
func changesOf(responses []*agentv1.SyncResponse) (changes []*agentv1.RuleSetChange) {
	for _, response := range responses {
		changes = append(changes, response.GetChanges()...)
	}
	return changes
}

func TestDomainSetReachesTheNodesWhosePoliciesNameIt(t *testing.T) {
	dataDir := t.TempDir()
	s := start(t, dataDir)
	large := manyDomains(100_000, "large")
	s.replace("domainSets/large", large)
	s.replace("domainSets/other", []string{"other.example"})
	s.putNaming("web", "web", "domainSets/large")
	web, db := newAgent(t, "web-1", map[string]string{"role": "web"}), newAgent(t, "db-1", map[string]string{"role": "db"})
	for _, a := range []*agent{web, db} {
		a.connect(s.connection)
		a.complete()
		a.ack()
	}
	for len(web.holds.DomainSets) == 0 { // the node was there before the policy was published
		web.complete()
		web.ack()
	}
	if set, ok := web.holds.DomainSet("domainSets/large"); !ok || len(set.Domains) != len(large) || len(web.holds.DomainSets) != 1 {
		t.Fatalf("web-1 holds %d sets, %d domains of the large one", len(web.holds.DomainSets), len(set.Domains))
	}
	if len(db.holds.DomainSets) != 0 {
		t.Errorf("db-1 holds sets that none of its policies names: %v", db.holds.DomainSets)
	}

	// One domain more is one change, to those alone that have the set.
	s.add("domainSets/large", "one.more.example")
	received := web.complete()
	size := 0
	for _, response := range received {
		size += proto.Size(response)
	}
	if changes := changesOf(received); len(changes) != 1 || !slices.Equal(changes[0].GetAddDomains().GetDomains(), []string{"one.more.example"}) || size > 2<<10 {
		t.Errorf("received %d bytes, %v, want the one domain", size, changes)
	}
	t.Logf("one domain of 100,000: %d bytes", size)
	web.ack()
	s.status("web-1", func(st *namewardv1.NodeStatus) bool {
		return st.GetAppliedRevision() == st.GetWantedRevision() && st.GetWantedRevision() == web.revision
	})
	// A set that no policy names reaches nobody. What db-1 gets next is of the policy that names it.
	s.add("domainSets/other", "other-too.example")
	s.putNaming("db", "db", "domainSets/other")
	if changes := changesOf(db.complete()); len(changes) != 2 || len(db.holds.DomainSets) != 1 || len(db.holds.DomainSets[0].Domains) != 2 {
		t.Errorf("db-1 received %v and holds %v", changes, db.holds.DomainSets)
	}
	db.ack()

	// Over a restart a node resumes, and is sent what changed while it was away.
	web.leave()
	s.stop()
	s = start(t, dataDir)
	web.connect(s.connection)
	if received := web.complete(); !received[0].GetResumed() || len(changesOf(received)) != 0 {
		t.Errorf("after the restart: received %d changes", len(changesOf(received)))
	}
	web.leave()
	if _, err := s.sets.RemoveDomains(t.Context(), &namewardv1.RemoveDomainsRequest{Name: "domainSets/large", Domains: large[:3]}); err != nil {
		t.Fatal(err)
	}
	web.connect(s.connection)
	changes := changesOf(web.complete())
	if len(changes) == 0 { // the node was back before the removal was published
		changes = changesOf(web.complete())
	}
	if len(changes) != 1 || !slices.Equal(changes[0].GetRemoveDomains().GetDomains(), large[:3]) {
		t.Errorf("after its return: received %v, want what left the set", changes)
	}
	web.leave()
}

func TestExplainByDomainSet(t *testing.T) {
	s := start(t, t.TempDir())
	s.replace("domainSets/saas", []string{"*.saas.example"})
	s.putNaming("web", "", "domainSets/saas")
	for destination, want := range map[string]namewardv1.Verdict{"a.saas.example": namewardv1.Verdict_ALLOW, "saas.example": namewardv1.Verdict_DENY} {
		got, err := s.nodes.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{Labels: map[string]string{"role": "web"}, Destination: destination, Port: 443})
		if err != nil || got.GetVerdict() != want {
			t.Errorf("%s: %v, %v, want %v", destination, got, err, want)
		}
		if reason := got.GetEvaluations()[1].GetReason(); want == namewardv1.Verdict_ALLOW && reason != "*.saas.example of domainSets/saas matches a.saas.example" {
			t.Errorf("%s: reason %q, want pattern and set", destination, reason)
		}
	}
}
