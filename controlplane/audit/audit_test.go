package audit_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/controlplane/access"
	"github.com/nameward/nameward/controlplane/audit"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

func TestEveryChangeIsOnRecord(t *testing.T) {
	k := open(t, t.TempDir(), settings)
	ctx := as(t, "spiffe://test/editor/ada")
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(k.PutPolicy(ctx, policyOf("web", "one", "a.example", "b.example"), store.Guard{}))
	do(k.PutPolicy(ctx, policyOf("web", "one", "a.example", "b.example"), store.Guard{})) // changes nothing
	do(k.PutPolicy(ctx, policyOf("web", "two", "b.example", "c.example"), store.Guard{}))
	do(nil, k.DeletePolicy(ctx, "policies/web", store.Guard{}))
	do(k.PutDomainSet(ctx, setOf("saas", "a.example"), store.Guard{}))
	do(k.PutDomainSet(ctx, setOf("saas", "a.example", "b.example"), store.Guard{}))
	do(nil, k.DeleteDomainSet(ctx, "domainSets/saas", store.Guard{}))
	id, err := node.ParseID("web-1")
	do(nil, err)
	do(nil, k.RegisterNode(ctx, store.Node{ID: id, Labels: map[string]string{"role": "web"}}))
	do(nil, k.DeleteNode(ctx, id, func() {}))
	k.log.Denied(access.Caller{Anonymous: true, Address: "127.0.0.1:1"}, "/nameward.v1.PolicyService/DeletePolicy", "may not", 3)
	if _, err := k.PutPolicy(ctx, policyOf("web", "", "a.example"), store.Guard{MustExist: true}); err == nil {
		t.Fatal("a policy that is not there was changed")
	}

	var got []string
	for _, event := range slices.Backward(k.list(t, audit.Filter{})) {
		before, after := describe(event.GetBefore()), describe(event.GetAfter())
		got = append(got, fmt.Sprintf("%s %s %s [%s]->[%s] +%d-%d %s %d %s", event.GetCaller().GetIdentity(), event.GetAction(), event.GetResource(),
			before, after, event.GetDomains().GetAddedCount(), event.GetDomains().GetRemovedCount(), event.GetOutcome(), event.GetRevision(), event.GetReason()))
		if event.GetCreateTime() == nil || event.GetCaller().GetAddress() == "" || event.GetOutcome() == namewardv1.AuditEvent_COMMITTED && event.GetEndTime() == nil {
			t.Errorf("incomplete: %v", event)
		}
	}
	const ada = "spiffe://test/editor/ada "
	want := []string{
		ada + "CREATE policies/web []->[one] +2-0 COMMITTED 2 ",
		ada + "UPDATE policies/web [one]->[two] +1-1 COMMITTED 3 ",
		ada + "DELETE policies/web [two]->[] +0-2 COMMITTED 4 ",
		ada + "CREATE domainSets/saas []->[1 domains] +1-0 COMMITTED 5 ",
		ada + "UPDATE domainSets/saas [1 domains]->[2 domains] +1-0 COMMITTED 6 ",
		ada + "DELETE domainSets/saas [2 domains]->[] +0-2 COMMITTED 7 ",
		ada + "DELETE nodes/web-1 [nodes/web-1 web]->[] +0-0 COMMITTED 9 ",
		"anonymous ACTION_UNSPECIFIED  []->[] +0-0 DENIED 0 may not",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if one := k.list(t, audit.Filter{Resource: "policies/web", Outcome: namewardv1.AuditEvent_COMMITTED}); len(one) != 3 {
		t.Errorf("of policies/web: %d events", len(one))
	}
	if all := k.list(t, audit.Filter{Resource: "domainSets"}); len(all) != 3 {
		t.Errorf("of domain sets: %d events", len(all))
	}
	if denied := k.list(t, audit.Filter{Identity: "anonymous"}); len(denied) != 1 || denied[0].GetCount() != 3 {
		t.Errorf("denied: %v", denied)
	}
	if late := k.list(t, audit.Filter{Since: time.Now().Add(time.Hour)}); len(late) != 0 {
		t.Errorf("of the future: %v", late)
	}
	if early := k.list(t, audit.Filter{Until: time.Now().Add(-time.Hour)}); len(early) != 0 {
		t.Errorf("of before: %v", early)
	}
}

func describe(r *namewardv1.AuditedResource) string {
	switch {
	case r.GetPolicy() != nil:
		return r.GetPolicy().GetDescription()
	case r.GetDomainSet() != nil:
		return fmt.Sprintf("%d domains", r.GetDomainSet().GetDomainCount())
	case r.GetNode() != nil:
		return r.GetNode().GetName() + " " + r.GetNode().GetLabels()["role"]
	}
	return ""
}

// A change whose outcome is missing is settled at the next start by what the store holds.
func TestSettledAtTheStart(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir, settings)
	one, err := k.PutPolicy(t.Context(), policyOf("web", "one", "a.example"), store.Guard{})
	if err != nil {
		t.Fatal(err)
	}
	// Begun, and the server dies: on a policy, and on one that there is not.
	for _, change := range []store.Change{
		{Name: "policies/web", Before: store.State{Policy: one}, After: store.State{Policy: policyOf("web", "never", "b.example")}, Content: [32]byte{1}},
		{Name: "policies/new", After: store.State{Policy: policyOf("new", "never", "b.example")}, Content: [32]byte{2}},
	} {
		if _, err := k.log.Begin(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	two, err := k.PutPolicy(t.Context(), policyOf("other", "made", "b.example"), store.Guard{})
	if err != nil {
		t.Fatal(err)
	}
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	// Its outcome is lost, as with the power.
	path := k.files(t)[0]
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	cut := strings.LastIndex(strings.TrimSuffix(string(text), "\n"), "\n") + 1
	if err := os.WriteFile(path, text[:cut], 0o600); err != nil {
		t.Fatal(err)
	}
	k = open(t, dir, settings)
	var got []string
	for _, event := range k.list(t, audit.Filter{}) {
		got = append(got, fmt.Sprintf("%s %s %d", event.GetResource(), event.GetOutcome(), event.GetRevision()))
	}
	want := []string{
		fmt.Sprintf("policies/other COMMITTED %d", two.Revision), "policies/new NOT_COMMITTED 0", "policies/web NOT_COMMITTED 0",
		fmt.Sprintf("policies/web COMMITTED %d", one.Revision),
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	// A second start has nothing to settle.
	before, _ := os.ReadFile(path)
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir, settings)
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("settled again")
	}
}

// A change that was built on an older state may be put on record behind later ones: it says nothing of them.
func TestSettledPastASlowChange(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir, settings)
	put := func(description string) *policy.Policy {
		t.Helper()
		stored, err := k.PutPolicy(t.Context(), policyOf("web", description, "a.example"), store.Guard{})
		if err != nil {
			t.Fatal(err)
		}
		return stored
	}
	one, _, three := put("one"), put("two"), put("three")
	if _, err := k.log.Begin(t.Context(), store.Change{
		Name: "policies/web", Before: store.State{Policy: one}, After: store.State{Policy: policyOf("web", "slow", "b.example")}, Content: [32]byte{1},
	}); err != nil {
		t.Fatal(err)
	}
	put("four")
	lost := k.list(t, audit.Filter{})[2]
	if lost.GetRevision() != three.Revision {
		t.Fatalf("the third event is of revision %d, want %d", lost.GetRevision(), three.Revision)
	}
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	path := k.files(t)[0]
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	text = bytes.Join(slices.DeleteFunc(bytes.SplitAfter(text, []byte{'\n'}), func(line []byte) bool {
		of := bytes.HasPrefix(line, []byte(`{"name":"`+lost.GetName()+`"`))
		second := of && seen
		seen = seen || of
		return second
	}), nil)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	k = open(t, dir, settings)
	var got []string
	for _, event := range k.list(t, audit.Filter{}) {
		got = append(got, fmt.Sprintf("%s %s", event.GetAfter().GetPolicy().GetDescription(), event.GetOutcome()))
	}
	want := []string{"four COMMITTED", "slow NOT_COMMITTED", "three COMMITTED", "two COMMITTED", "one COMMITTED"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
