package e2e_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/e2e/lab"
)

var update = flag.Bool("update", false, "write the page of the agent's metrics")

const metricsPageBegin = `# Metrics of the agent

Written by ` + "`go test ./e2e -run TestAgentMetricsPage -update`" + ` from what an agent serves at ` + "`--metrics-listen`" + `, with those of the Go runtime and of the process (` + "`go_…`, `process_…`" + `). What to do about them is in [operations.md](operations.md#metrics); those of the policy server are in [metrics.md](metrics.md).

| metric | kind | |
| --- | --- | --- |
`

// TestAgentMetricsPage holds docs/metrics-agent.md to what an agent serves that is connected with a certificate, and has a
// rule set in force.
func TestAgentMetricsPage(t *testing.T) {
	f := &fleet{Lab: newLab(t), t: t}
	pki := filepath.Join(f.Dir, "pki")
	for _, args := range [][]string{{"init"}, {"issue", "--role", "server", "--name", "policy"}, {"issue", "--role", "node", "--name", lab.NodeName}} {
		if out, err := f.command(t.Context(), f.Program("namewardctl"), append([]string{"pki"}, append(args, "--dir", pki)...)...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	identity := func(name string) []string {
		return []string{"--tls-cert", filepath.Join(pki, name+".crt"), "--tls-key", filepath.Join(pki, name+".key"), "--client-ca", filepath.Join(pki, "ca.crt")}
	}
	_, err := f.Start(t.Context(), f.Node, "nameward-server", f.Program("nameward-server"),
		append(identity("server-policy"), "--listen", lab.ServerAddress, "--data-dir", filepath.Join(f.Dir, "server"))...)
	f.must(err)
	_, err = f.StartAgentAlone(t.Context(), append(identity("node-"+lab.NodeName), "--insecure=false")...)
	f.must(err)
	served := ""
	f.must(lab.Await(t.Context(), func() (err error) {
		served, err = f.served("http://127.0.0.1:7481/metrics")
		if err == nil && (!strings.Contains(served, "nameward_agent_connected 1") || !strings.Contains(served, "nameward_agent_rule_set_info")) {
			err = fmt.Errorf("the agent is not connected, or has no rule set:\n%s", served)
		}
		return err
	}, nil))
	want := metricsPageBegin + metricsTable(t, strings.NewReader(served))
	const page = "../docs/metrics-agent.md"
	if *update {
		f.must(os.WriteFile(page, []byte(want), 0o644)) //nolint:gosec // for everybody
	}
	got, err := os.ReadFile(page)
	f.must(err)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/metrics-agent.md is not of this agent: run this test with -update (-want +got):\n%s", diff)
	}
}

// served returns what is at a URL of the node.
func (f *fleet) served(url string) (string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
		return f.Node.Dial(network, address, lab.Patience)
	}}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

// identities are labels whose values are not the same on every node.
var identities = []string{"rule_set", "version"}

var sample = regexp.MustCompile(`^(\w+)(?:\{(\w+)="([^"]*)"\})? `)

// metricsTable writes a line for each metric in the form in which Prometheus reads it, with the values of its label.
func metricsTable(t *testing.T, text io.Reader) string {
	t.Helper()
	help, kind, label, values := map[string]string{}, map[string]string{}, map[string]string{}, map[string][]string{}
	lines := bufio.NewScanner(text)
	for lines.Scan() {
		switch fields := strings.SplitN(lines.Text(), " ", 4); {
		case !strings.Contains(lines.Text(), "nameward_"):
		case fields[1] == "HELP":
			help[fields[2]] = fields[3]
		case fields[1] == "TYPE":
			kind[fields[2]] = fields[3]
		default:
			parts := sample.FindStringSubmatch(lines.Text())
			if parts == nil {
				t.Fatalf("%q is not in the form that is known", lines.Text())
			}
			label[parts[1]] = parts[2]
			values[parts[1]] = append(values[parts[1]], "`"+parts[3]+"`")
		}
	}
	var table strings.Builder
	for _, name := range slices.Sorted(maps.Keys(kind)) {
		full, about := name, help[name]
		if l := label[name]; l != "" {
			full = name + "{" + l + "}"
			if !slices.Contains(identities, l) {
				slices.Sort(values[name])
				about += " " + strings.Join(values[name], ", ")
			}
		}
		fmt.Fprintf(&table, "| `%s` | %s | %s |\n", full, kind[name], about)
	}
	return table.String()
}
