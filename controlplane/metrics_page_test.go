package controlplane

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/storage/etcd"
	"github.com/nameward/nameward/controlplane/store"
)

var update = flag.Bool("update", false, "write docs/metrics.md")

const pageBegin = `# Metrics of the policy server

Written by ` + "`go test ./controlplane -run TestMetricsPage -update`" + ` from the code. Prometheus, at ` + "`--metrics-listen`" + `, with those of the Go runtime and of the process (` + "`go_…`, `process_…`" + `). What to do about them is in [operations.md](operations.md#metrics), as are those of the agent.

| metric | kind | |
| --- | --- | --- |
`

// TestMetricsPage holds docs/metrics.md to the code.
func TestMetricsPage(t *testing.T) {
	file, err := bolt.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	s, err := store.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.DataDir = t.TempDir()
	cluster, err := etcd.Open(etcd.Config{Endpoints: []string{"127.0.0.1:1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	stages := newStages(cfg, s, backend{Backend: cluster, shared: cluster}, &security{}, slog.New(slog.DiscardHandler))
	keeping, err := openAccess(cfg, s, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer keeping.close()
	var lines []string
	for _, c := range slices.Concat(newConnections(nil, 0, nil).collectors(), file.Collectors(), cluster.Collectors(), keeping.collectors(), stages.collectors(cfg), (&security{}).collectors()) {
		lines = append(lines, linesOf(t, c)...)
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	want := pageBegin + strings.Join(lines, "")
	const page = "../docs/metrics.md"
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil { //nolint:gosec // for everybody
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/metrics.md is not of this code: run this test with -update (-want +got):\n%s", diff)
	}
}

var descForm = regexp.MustCompile(`^Desc\{fqName: "([^"]+)", help: (".*"), constLabels: \{\}, variableLabels: \{([^}]*)\}`)

func linesOf(t *testing.T, c prometheus.Collector) (lines []string) {
	t.Helper()
	descs := make(chan *prometheus.Desc, 100)
	c.Describe(descs)
	close(descs)
	for desc := range descs {
		parts := descForm.FindStringSubmatch(desc.String())
		if parts == nil {
			t.Fatalf("%s is not in the form that is known", desc)
		}
		name, labels := parts[1], parts[3]
		if labels != "" {
			name += "{" + labels + "}"
		}
		var help string
		if _, err := fmt.Sscanf(parts[2], "%q", &help); err != nil || help == "" {
			t.Fatalf("%s has no help: %v", name, err)
		}
		lines = append(lines, fmt.Sprintf("| `%s` | %s | %s |\n", name, kindOf(t, c), strings.ReplaceAll(help, "|", `\|`)))
	}
	return lines
}

func kindOf(t *testing.T, c prometheus.Collector) string {
	t.Helper()
	switch c := c.(type) {
	case *prometheus.CounterVec, *refusalCounts:
		return "counter"
	case *prometheus.GaugeVec, *holdings:
		return "gauge"
	case *prometheus.HistogramVec:
		return "histogram"
	case prometheus.Metric:
		var sample dto.Metric
		if err := c.Write(&sample); err != nil {
			t.Fatal(err)
		}
		switch {
		case sample.GetCounter() != nil:
			return "counter"
		case sample.GetGauge() != nil:
			return "gauge"
		case sample.GetHistogram() != nil:
			return "histogram"
		}
	}
	t.Fatalf("of %T it is not known what it is", c)
	return ""
}
