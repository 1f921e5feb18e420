package path

import (
	"testing"

	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// smallest is enough to see that everything still works.
var smallest = extent{
	rounds: 1, sets: []int{3}, workloads: []int{3}, backends: []string{netfilter.Legacy}, selections: 1, bursts: 1, asked: 40, questions: 20,
}

func TestNewConnections(t *testing.T) {
	bpftest.RequirePrivileged(t)
	result, err := newConnections(t.Context(), report.Config{Log: t.Output()}, smallest)
	if err != nil {
		t.Fatal(err)
	}
	check(t, result)
}

func TestWorkloads(t *testing.T) {
	bpftest.RequirePrivileged(t)
	result, err := workloads(t.Context(), report.Config{Log: t.Output()}, smallest)
	if err != nil {
		t.Fatal(err)
	}
	check(t, result)
}

func TestProcesses(t *testing.T) {
	bpftest.RequirePrivileged(t)
	result, err := processes(t.Context(), report.Config{Log: t.Output()}, smallest)
	if err != nil {
		t.Fatal(err)
	}
	check(t, result)
}

func TestEstablished(t *testing.T) {
	bpftest.RequirePrivileged(t)
	result, err := established(t.Context(), report.Config{Log: t.Output()}, smallest)
	if err != nil {
		t.Fatal(err)
	}
	check(t, result)
}

// check makes sure that a result says something.
func check(t *testing.T, result report.Result) {
	t.Helper()
	for _, budget := range result.Budgets {
		t.Logf("%s: %s, %s: %v %s", budget.Work, budget.Promise, budget.Measured, budget.Met, budget.Note)
		if budget.Work == "" || budget.Promise == "" || budget.Measured == "" {
			t.Errorf("budget with nothing to say: %+v", budget)
		}
	}
	for _, table := range result.Tables {
		t.Log(table.Caption, table.Columns)
		for _, row := range table.Rows {
			t.Log(row)
			if len(row) != len(table.Columns) {
				t.Errorf("table %q has %d columns, and a row of %d: %v", table.Caption, len(table.Columns), len(row), row)
			}
		}
	}
	for _, plot := range result.Plots {
		for _, line := range plot.Lines {
			if len(line.Points) == 0 {
				t.Errorf("plot %q has an empty line: %s", plot.Title, line.Name)
			}
		}
	}
}

func TestDNS(t *testing.T) {
	bpftest.RequirePrivileged(t)
	result, err := dnsInPath(t.Context(), report.Config{Log: t.Output()}, smallest)
	if err != nil {
		t.Fatal(err)
	}
	check(t, result)
}

func TestStages(t *testing.T) {
	bpftest.RequirePrivileged(t)
	result, err := stagesInPath(t.Context(), report.Config{Log: t.Output()}, smallest)
	if err != nil {
		t.Fatal(err)
	}
	check(t, result)
	if len(result.Tables) != len(stagedPrograms) {
		t.Errorf("%d tables of %d programs", len(result.Tables), len(stagedPrograms))
	}
}
