package program

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bench/names"
	"github.com/nameward/nameward/bench/report"
	"github.com/nameward/nameward/bpf/bpftest"
)

// Every section still works, on one node and with its smallest sizes. What it measures is not looked at.
func TestSections(t *testing.T) {
	bpftest.RequirePrivileged(t)
	n, err := newNode(agentPatterns, effort{hotRounds: 1, variedRounds: 1, packets: 100})
	t.Cleanup(func() {
		if err := n.close(); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	list := names.Generate(2000)
	for name, measure := range map[string]func() (report.Result, error){
		"responses": func() (report.Result, error) { return n.responses(t.Context(), list, 100) },
		"names":     func() (report.Result, error) { return n.names(t.Context(), list, []int{100, 1000}) },
		"addresses": func() (report.Result, error) { return n.addresses(t.Context(), list, []int{1, 3}) },
		"sets":      func() (report.Result, error) { return n.sets(t.Context(), list, []int{1, 20}) },
		"workloads": func() (report.Result, error) { return n.workloads(t.Context(), list, []int{1, 20}) },
		"kernel":    func() (report.Result, error) { return n.kernel(t.Context(), list, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			result, err := measure()
			if err != nil {
				t.Fatal(err)
			}
			if result.Title == "" || result.Text == "" || len(result.Tables) == 0 {
				t.Errorf("result: %+v", result)
			}
			for _, table := range result.Tables {
				for _, row := range table.Rows {
					if len(row) != len(table.Columns) {
						t.Errorf("%d cells in a row of %d: %q", len(row), len(table.Columns), row)
					}
				}
			}
			for _, plot := range result.Plots {
				for _, line := range plot.Lines {
					if len(line.Points) != 2 {
						t.Errorf("%s: line %s has %d points", plot.File, line.Name, len(line.Points))
					}
				}
			}
		})
	}
}

func TestAnInterruptedSectionEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := interleave(ctx, 1, hot("never run", nil, nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v", err)
	}
}

func TestReversed(t *testing.T) {
	for text, want := range map[string]string{"example.com": "moc.elpmaxe\x00", "*.example.com": "moc.elpmaxe."} {
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		key := reversed(pattern)
		if got := string(key.Name[:key.Bits/8]); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestSectionsHaveNames(t *testing.T) {
	var all []string
	for _, section := range Sections() {
		if !strings.HasPrefix(section.Name, "program-") || slices.Contains(all, section.Name) {
			t.Errorf("section %q", section.Name)
		}
		all = append(all, section.Name)
	}
}
