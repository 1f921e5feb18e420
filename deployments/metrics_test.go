package deployments_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// family is a metric as its page says it: its labels, and whether it is a histogram.
type family struct {
	labels    []string
	histogram bool
	about     string // of the agent's with the values of the label
}

var pageLine = regexp.MustCompile("(?m)^\\| `(nameward_[a-z_]+)(?:\\{([a-z_,]+)\\})?` \\| (\\w+) \\|(.*)$")

// families reads the pages of metrics, which are written from the code and from what an agent serves.
func families(t *testing.T) map[string]family {
	t.Helper()
	known := map[string]family{}
	pages := read(t, "../docs/metrics.md") + read(t, "../docs/metrics-agent.md")
	for _, line := range pageLine.FindAllStringSubmatch(pages, -1) {
		f := family{histogram: line[3] == "histogram", about: line[4]}
		if line[2] != "" {
			f.labels = strings.Split(line[2], ",")
		}
		known[line[1]] = f
	}
	if len(known) < 70 {
		t.Fatalf("the pages have %d metrics", len(known))
	}
	return known
}

var (
	selector  = regexp.MustCompile(`\b(nameward_\w+)(?:\{([^}]*)\})?`)
	matcher   = regexp.MustCompile(`(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"`)
	grouping  = regexp.MustCompile(`\bby \(([^)]*)\)`)
	ofTargets = []string{"instance", "job"} // which Prometheus adds to each metric
	ofBuckets = regexp.MustCompile(`_(?:bucket|sum|count)$`)
)

// checkExpression holds that each metric of an expression exists, and has the labels by which it is selected and
// grouped.
func checkExpression(t *testing.T, known map[string]family, where, expression string) {
	t.Helper()
	labels := slices.Clone(ofTargets)
	for _, found := range selector.FindAllStringSubmatch(expression, -1) {
		name := found[1]
		metric, is := known[name]
		if !is || metric.histogram {
			metric, is = known[ofBuckets.ReplaceAllString(name, "")]
			is = is && metric.histogram && ofBuckets.MatchString(name)
		}
		if !is {
			t.Errorf("%s: there is no metric %s", where, name)
			continue
		}
		labels = append(labels, metric.labels...)
		if metric.histogram {
			labels = append(labels, "le")
		}
		for _, match := range matcher.FindAllStringSubmatch(found[2], -1) {
			if !slices.Contains(metric.labels, match[1]) && !slices.Contains(ofTargets, match[1]) && (!metric.histogram || match[1] != "le") {
				t.Errorf("%s: %s has no label %s", where, name, match[1])
			}
			if slices.Contains(metric.labels, match[1]) && match[2] == "=" && strings.HasPrefix(name, "nameward_agent_") && !strings.Contains(metric.about, "`"+match[3]+"`") {
				t.Errorf("%s: %s has no %s %q", where, name, match[1], match[3])
			}
		}
	}
	for _, group := range grouping.FindAllStringSubmatch(expression, -1) {
		for label := range strings.SplitSeq(group[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(labels, label) {
				t.Errorf("%s: no metric of it has the label %s", where, label)
			}
		}
	}
}

type rules struct {
	Groups []struct {
		Rules []struct {
			Alert, Expr         string
			Labels, Annotations map[string]string
		}
	}
}

// TestAlertsNameMetrics: each alert is about metrics and labels that exist, and says how bad it is and what it means.
func TestAlertsNameMetrics(t *testing.T) {
	known := families(t)
	var file rules
	if err := yaml.Unmarshal([]byte(read(t, "prometheus/nameward.rules.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	tests := read(t, "prometheus/nameward.test.yaml")
	count := 0
	for _, group := range file.Groups {
		for _, rule := range group.Rules {
			count++
			checkExpression(t, known, rule.Alert, rule.Expr)
			if !slices.Contains([]string{"critical", "warning", "info"}, rule.Labels["severity"]) {
				t.Errorf("%s: severity %q", rule.Alert, rule.Labels["severity"])
			}
			if rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				t.Errorf("%s does not say what it means", rule.Alert)
			}
			if !strings.Contains(tests, "alertname: "+rule.Alert+"\n") {
				t.Errorf("%s has no test", rule.Alert)
			}
		}
	}
	if count == 0 {
		t.Error("there are no alerts")
	}
}

// TestAlerts has Prometheus's own tool check the rules, and that each fires when it should and not before.
func TestAlerts(t *testing.T) {
	promtool := "../.bin/promtool"
	if _, err := os.Stat(promtool); err != nil {
		if promtool, err = exec.LookPath("promtool"); err != nil {
			if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
				t.Fatal("there is no promtool: make tools-packages")
			}
			t.Skip("there is no promtool: make tools-packages")
		}
	}
	promtool, err := filepath.Abs(promtool)
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "nameward.rules.yaml"}, {"test", "rules", "nameward.test.yaml"}} {
		command := exec.CommandContext(t.Context(), promtool, args...) //nolint:gosec // as above
		command.Dir = "prometheus"
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// TestDashboardNamesMetrics: each panel shows metrics and labels that exist, has an id of its own, and lies beside the
// others, not upon them.
func TestDashboardNamesMetrics(t *testing.T) {
	known := families(t)
	var dashboard struct {
		Title, UID string
		Panels     []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ RefID, Expr string }
		}
		Templating struct {
			List []struct{ Name, Definition string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, "grafana/nameward.json")), &dashboard); err != nil {
		t.Fatal(err)
	}
	taken, ids := map[[2]int]string{}, map[int]bool{}
	for _, panel := range dashboard.Panels {
		if ids[panel.ID] {
			t.Errorf("%s: another panel has the id %d", panel.Title, panel.ID)
		}
		ids[panel.ID] = true
		if panel.Type != "row" && len(panel.Targets) == 0 {
			t.Errorf("%s shows nothing", panel.Title)
		}
		for _, target := range panel.Targets {
			if !strings.Contains(target.Expr, "nameward") {
				t.Errorf("%s: %q is about something else", panel.Title, target.Expr)
			}
			checkExpression(t, known, panel.Title, target.Expr)
		}
		for x := panel.GridPos.X; x < panel.GridPos.X+panel.GridPos.W; x++ {
			for y := panel.GridPos.Y; y < panel.GridPos.Y+panel.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("%s lies upon %q, or over the edge", panel.Title, other)
				}
				taken[[2]int{x, y}] = panel.Title
			}
		}
	}
	for _, variable := range dashboard.Templating.List {
		checkExpression(t, known, variable.Name, variable.Definition)
	}
}
