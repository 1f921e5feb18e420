package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/nameward/nameward/bench/programs"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf/bpftest"
)

// Of the smallest sizes, every section still measures something.
func TestSections(t *testing.T) {
	bpftest.RequirePrivileged(t)
	bin := t.TempDir()
	if err := programs.Build(t.Context(), bin, programs.Agent); err != nil {
		t.Fatal(err)
	}
	names := make([]string, 500)
	for i := range names {
		names[i] = fmt.Sprintf("host-%d.site-%d.example", i, i%10)
	}
	smallest := func(bool) size {
		return size{
			patterns: 500, changes: 4, removals: 1, mappings: 200, lifetime: time.Second, responses: 2000,
			duration: 100 * time.Millisecond, rounds: 1, idle: 200 * time.Millisecond,
		}
	}
	for _, section := range (works{sizes: smallest}).sections() {
		t.Run(section.Name, func(t *testing.T) {
			result, err := section.Measure(t.Context(), report.Config{Fast: true, Names: names, Log: t.Output(), Programs: bin})
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Budgets) == 0 || len(result.Tables) == 0 {
				t.Errorf("got %+v, want budgets and tables", result)
			}
			for _, b := range result.Budgets {
				t.Log(b.Work, b.Measured)
			}
		})
	}
}
