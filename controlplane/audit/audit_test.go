package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/nameward/nameward/api/identity"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/access"
	"github.com/nameward/nameward/controlplane/audit"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, changeUntilKilled(dir))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// kept is a store whose changes are on record.
type kept struct {
	*store.Store
	log   *audit.Log
	dir   string
	close func() error
}

var settings = audit.Config{MaxBytes: 1 << 20, MaxFiles: 8}

func openKept(dir string, cfg audit.Config) (*kept, error) {
	backend, err := bolt.Open(dir)
	if err != nil {
		return nil, err
	}
	s, err := store.Open(context.Background(), backend)
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	if cfg.Dir == "" {
		cfg.Dir = audit.DirOf(dir)
	}
	log, err := audit.Open(cfg, s, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	s.RecordIn(log)
	return &kept{s, log, cfg.Dir, sync.OnceValue(func() error { return errors.Join(log.Close(), backend.Close()) })}, nil
}

func open(t *testing.T, dir string, cfg audit.Config) *kept {
	t.Helper()
	k, err := openKept(dir, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := k.close(); err != nil {
			t.Error(err)
		}
	})
	return k
}

// list returns all events, the latest first, read a few at a time.
func (k *kept) list(t *testing.T, filter audit.Filter) []*namewardv1.AuditEvent {
	t.Helper()
	var all []*namewardv1.AuditEvent
	for at := (audit.Position{}); ; {
		page, err := k.log.List(t.Context(), filter, at, 7, 1<<20)
		if err != nil || page.Damaged > 0 {
			t.Fatalf("list: %v, %d damaged", err, page.Damaged)
		}
		all = append(all, page.Events...)
		if !page.More {
			return all
		}
		at = page.Next
	}
}

func (k *kept) files(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(k.dir, "*.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func policyOf(id, description string, domains ...string) *policy.Policy {
	p, err := policy.Parse(&namewardv1.Policy{
		Name: policy.Collection + id, Description: description,
		Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: domains}},
	})
	if err != nil {
		panic(err)
	}
	return p
}

func setOf(id string, texts ...string) *policy.DomainSet {
	domains, err := policy.ParseDomains(texts, 0)
	if err != nil {
		panic(err)
	}
	return &policy.DomainSet{DomainSet: ruleset.NewDomainSet(policy.DomainSetCollection+id, domains)}
}

// as returns a context of a caller's request.
func as(t *testing.T, who string) context.Context {
	t.Helper()
	id, err := identity.ParseID(who)
	if err != nil {
		t.Fatal(err)
	}
	return access.NewContext(t.Context(), access.Caller{ID: id, Role: identity.Editor, Address: "192.0.2.7:4711"})
}

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

// The files are lines of JSON that a program can read without this one, for their owner alone.
func TestFilesAreLinesForTheirOwner(t *testing.T) {
	k := open(t, t.TempDir(), settings)
	if _, err := k.PutPolicy(as(t, "spiffe://test/editor/ada"), policyOf("web", "é\n\"", "a.example"), store.Guard{}); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(k.dir)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v", info.Mode(), err)
	}
	for _, path := range k.files(t) {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
		if len(lines) != 2 {
			t.Fatalf("%d lines:\n%s", len(lines), text)
		}
		for _, line := range lines {
			if err := protojson.Unmarshal([]byte(line), &namewardv1.AuditEvent{}); err != nil {
				t.Errorf("%s: %v", line, err)
			}
		}
	}
}

// However large the change, its line is bounded, and says how much it leaves out.
func TestLinesAreBounded(t *testing.T) {
	k := open(t, t.TempDir(), settings)
	texts := make([]string, 200_000)
	for i := range texts {
		texts[i] = fmt.Sprintf("host-%06d.%s.example", i, strings.Repeat("long", 12))
	}
	if _, err := k.PutDomainSet(t.Context(), setOf("huge", texts...), store.Guard{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.PutDomainSet(t.Context(), setOf("huge", "other.example"), store.Guard{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.PutPolicy(t.Context(), policyOf("huge", "", texts[:20_000]...), store.Guard{}); err != nil {
		t.Fatal(err)
	}
	events := k.list(t, audit.Filter{})
	set, large := events[1], events[0]
	if set.GetDomains().GetAddedCount() != 1 || set.GetDomains().GetRemovedCount() != 200_000 || len(set.GetDomains().GetRemoved()) != 100 {
		t.Errorf("domain set: %v", set.GetDomains())
	}
	if rule := large.GetAfter().GetPolicy().GetRules()[0]; len(rule.GetDomains()) != 20 || large.GetAfter().GetLeftOut() != 19_980 || large.GetDomains().GetAddedCount() != 20_000 {
		t.Errorf("policy: %d domains, %d left out, %d added", len(rule.GetDomains()), large.GetAfter().GetLeftOut(), large.GetDomains().GetAddedCount())
	}
	stored, err := k.Policy("policies/huge")
	if err != nil || len(stored.Message.GetRules()[0].GetDomains()) != 20_000 {
		t.Error("what is stored was shortened")
	}
	for _, path := range k.files(t) {
		if info, err := os.Stat(path); err != nil || info.Size() > 100_000 {
			t.Errorf("%s has %d bytes", path, info.Size())
		}
	}
}

// Files are left when they are full, the oldest go first, and each can be read by itself, whoever changes what at once.
func TestRotation(t *testing.T) {
	k := open(t, t.TempDir(), audit.Config{MaxBytes: 8 << 10, MaxFiles: 3})
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 40 {
				if _, err := k.PutPolicy(t.Context(), policyOf(fmt.Sprintf("w%d", w), fmt.Sprint(i), "a.example"), store.Guard{}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	files := k.files(t)
	if len(files) != 3 {
		t.Errorf("%d files: %v", len(files), files)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := map[string]int{}
		for line := range strings.Lines(string(text)) {
			event := &namewardv1.AuditEvent{}
			if err := protojson.Unmarshal([]byte(line), event); err != nil {
				t.Fatal(err)
			}
			lines[event.GetName()]++
		}
		for name, count := range lines {
			if count != 2 {
				t.Errorf("%s has %d lines of %s", path, count, name)
			}
		}
	}
	events := k.list(t, audit.Filter{})
	for i, event := range events {
		if event.GetOutcome() != namewardv1.AuditEvent_COMMITTED {
			t.Errorf("event %d: %v", i, event)
		}
	}
	if len(events) < 10 || events[0].GetRevision() != 321 && events[1].GetRevision() != 321 {
		t.Errorf("%d events, the last of revisions %d and %d", len(events), events[0].GetRevision(), events[1].GetRevision())
	}
}

// What was cut short by a crash is gone, what others put there is said, and neither keeps the log from being read.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	k := open(t, dir, settings)
	if _, err := k.PutPolicy(t.Context(), policyOf("web", "one", "a.example"), store.Guard{}); err != nil {
		t.Fatal(err)
	}
	if err := k.close(); err != nil {
		t.Fatal(err)
	}
	path := k.files(t)[0]
	appendTo(t, path, "no event\n{\"name\":\"auditEvents/x\",\"createTime\":nonsense}\n{\"name\":\"auditEvents/y\",\"crea")
	k = open(t, dir, settings)
	if _, err := k.PutPolicy(t.Context(), policyOf("web", "two", "a.example"), store.Guard{}); err != nil {
		t.Fatal(err)
	}
	page, err := k.log.List(t.Context(), audit.Filter{}, audit.Position{}, 10, 1<<20)
	if err != nil || page.Damaged != 2 || len(page.Events) != 2 {
		t.Errorf("got %d events, %d damaged, %v", len(page.Events), page.Damaged, err)
	}
	text, err := os.ReadFile(path)
	if err != nil || strings.Contains(string(text), "auditEvents/y") {
		t.Errorf("half a line stayed: %v", err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
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

func FuzzDamagedFile(f *testing.F) {
	f.Add([]byte("{\"name\":\"auditEvents/x\",\"createTime\":\"2026-01-01T00:00:00Z\"}\n{\"name\":\"auditEvents/x\",\"outcome\":\"COMMITTED\"}\n"))
	f.Add([]byte("{\"name\":\"auditEvents/\"}\n\n{"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "00000001.jsonl"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		log, err := audit.Open(audit.Config{Dir: dir, MaxBytes: 1 << 20, MaxFiles: 2}, nobody{}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := log.List(t.Context(), audit.Filter{}, audit.Position{}, 1000, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := log.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// nobody knows of no change what became of it.
type nobody struct{}

func (nobody) FateOf(string, uint64, []byte) (store.Fate, uint64, error) {
	return store.FateUnknown, 0, nil
}
