package fleet

import (
	"os"
	"testing"
	"time"

	"github.com/nameward/nameward/bench/report"
)

// Every section runs, with sizes that show nothing but that.
func TestSections(t *testing.T) {
	bin, err := Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := works{bin: bin, sizes: func(bool) size {
		return size{
			policies: 20, nodes: 5, syncs: 2, quiet: 2, busyTime: 200 * time.Millisecond, burst: 50,
			connected: 5, domains: 1_000, users: 2, edits: 2, writes: 5, replaced: 1_000, reporters: 5, mappings: 5_000, queries: 2,
		}
	}}
	for _, section := range w.sections() {
		t.Run(section.Name, func(t *testing.T) {
			result, err := section.Measure(t.Context(), report.Config{Fast: true, Log: os.Stderr})
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Budgets) == 0 || result.Title == "" {
				t.Errorf("nothing measured: %+v", result)
			}
		})
	}
}
