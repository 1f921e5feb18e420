package fleet

import (
	"os"
	"testing"
	"time"

	"github.com/nameward/nameward/bench/programs"
	"github.com/nameward/nameward/bench/report"
)

// Every section runs, with sizes that show nothing but that.
func TestSections(t *testing.T) {
	bin := t.TempDir()
	if err := programs.Build(t.Context(), bin, programs.Server, programs.Bare); err != nil {
		t.Fatal(err)
	}
	w := works{sizes: func(bool) size {
		return size{
			policies: 20, nodes: 5, syncs: 2, quiet: 2, busyTime: 200 * time.Millisecond, burst: 50,
			connected: 5, domains: 1_000, users: 2, edits: 2, writes: 5, replaced: 1_000, reporters: 5, mappings: 5_000, queries: 2,
		}
	}}
	for _, section := range w.sections() {
		t.Run(section.Name, func(t *testing.T) {
			result, err := section.Measure(t.Context(), report.Config{Fast: true, Log: os.Stderr, Programs: bin})
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Budgets) == 0 || result.Title == "" {
				t.Errorf("nothing measured: %+v", result)
			}
		})
	}
}
