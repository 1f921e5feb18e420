package traffic

import (
	"context"
	"testing"
	"time"

	"github.com/nameward/nameward/bench/programs"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf/bpftest"
)

// TestSections measures with the smallest sizes: that each variant works, and that what comes out can be shown.
func TestSections(t *testing.T) {
	bpftest.RequirePrivileged(t)
	small := plan{
		patterns: 1, rounds: 1, slice: 20 * time.Millisecond,
		visitRounds: 1, visits: 20, firstPackets: 100, firstPacketsFree: 20,
		runs: 1, chunks: 2, chunk: 100,
	}
	bin := t.TempDir()
	if err := programs.Build(t.Context(), bin, programs.Server, programs.Agent, programs.Baseline); err != nil {
		t.Fatal(err)
	}
	n, ways, err := newWays(t.Context(), bin, []string{"*.example"}, noRules, oneRule, emptyRules, ours, queueHeld, queueFree, dnsmasqIPSet, dnsmasqNFT, proxy, proxyOfNames)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	for name, measure := range map[string]func(context.Context, plan, []*way) (report.Result, error){
		"queries": measureQueries, "connect": measureConnect, "shared address": measureShared,
	} {
		t.Run(name, func(t *testing.T) {
			result, err := measure(t.Context(), small, ways)
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Tables) == 0 || len(result.Budgets) == 0 {
				t.Errorf("result: %+v; want tables and budgets", result)
			}
			t.Log(result.Budgets)
			for _, table := range result.Tables {
				for _, row := range table.Rows {
					if len(row) != len(table.Columns) {
						t.Errorf("%s: row %q has not as many cells as there are columns", table.Caption, row)
					}
					t.Log(row)
				}
			}
		})
	}
}
