package audit_test

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/audit"
	"github.com/nameward/nameward/controlplane/store"
)

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
