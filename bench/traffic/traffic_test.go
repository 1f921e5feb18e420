package traffic

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf/bpftest"
)

// TestSections measures with the smallest sizes: that each variant works, and that what comes out can be shown.
func TestSections(t *testing.T) {
	bpftest.RequirePrivileged(t)
	small := plan{
		patterns: 1000, rounds: 1, slice: 20 * time.Millisecond,
		visitRounds: 1, visits: 20, firstPackets: 100, firstPacketsFree: 20,
		runs: 1, chunks: 2, chunk: 100,
	}
	var config report.Config
	for i := range small.patterns {
		config.Names = append(config.Names, fmt.Sprintf("name%d.example", i))
	}
	config.Log = os.Stderr
	for name, section := range map[string]func(context.Context, plan, report.Config) (report.Result, error){
		"queries": queries, "connect": connects, "shared address": shared,
	} {
		t.Run(name, func(t *testing.T) {
			result, err := section(t.Context(), small, config)
			if err != nil {
				t.Fatal(err)
			}
			if len(result.Tables) == 0 || len(result.Budgets) == 0 {
				t.Errorf("result: %+v; want tables and budgets", result)
			}
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
