package dataplane

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
	"github.com/nameward/nameward/dataplane/observe"
	"github.com/nameward/nameward/dataplane/subscribe"
)

func TestCleanupLeavesNothing(t *testing.T) {
	for _, backend := range []string{netfilter.NFT, netfilter.Legacy} {
		t.Run(backend, func(t *testing.T) {
			bpfDir := netfiltertest.EnterNode(t)
			cfg := testConfig(t, "127.0.0.1:1")
			cfg.BPFDir, cfg.IPTables = filepath.Join(bpfDir, "nameward"), backend
			leaveBehind(t, cfg)
			removed, err := Cleanup(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			first, pins := slices.Index(removed, "pins below "+cfg.BPFDir), len(removed)
			if first < 0 || !strings.HasPrefix(removed[0], "iptables") || slices.ContainsFunc(removed[first:pins], isRule) {
				t.Errorf("removed %q, want rules first, then pins", removed)
			}
			for _, path := range []string{cfg.BPFDir, cfg.StateDir} {
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s is left", path)
				}
			}
			output, err := exec.Command("iptables-" + backend + "-save").Output()
			if err != nil || strings.Contains(string(output), "NAMEWARD") {
				t.Errorf("rules after cleanup: %v\n%s", err, output)
			}
			if removed, err := Cleanup(t.Context(), cfg); err != nil || len(removed) > 0 {
				t.Errorf("second cleanup: %q, %v; want nothing to do", removed, err)
			}
		})
	}
}

func isRule(name string) bool { return strings.HasPrefix(name, "ip") }

// leaveBehind leaves what an agent leaves that was stopped.
func leaveBehind(t *testing.T, cfg Config) {
	t.Helper()
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	held, err := takeLock(cfg.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer held.release()
	path, err := datapath.Open(cfg.datapath(), observe.NewTable(0, 0), observe.NewFlows(0))
	if err != nil {
		t.Fatal(err)
	}
	defer path.Close()
	resolvers, err := cfg.resolvers()
	if err != nil {
		t.Fatal(err)
	}
	filter, err := netfilter.New(t.Context(), netfilter.Config{
		Backend: cfg.IPTables, Programs: netfilter.Programs(path.Programs()), Resolvers: resolvers,
		Mark: cfg.Mark, DeniedTarget: cfg.DeniedTarget,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := filter.Ensure(t.Context()); err != nil {
		t.Fatal(err)
	}
	rules := someRules()
	disk := subscribe.NewDisk(cfg.StateDir, slog.New(slog.DiscardHandler))
	if err := disk.Save(&enforce.Revision{StoreID: "store", Number: 1, Rules: rules, ID: rules.ID()}); err != nil {
		t.Fatal(err)
	}
}

func TestCheckMeetsThisMachine(t *testing.T) {
	bpfDir := netfiltertest.EnterNode(t)
	cfg := testConfig(t, "127.0.0.1:1")
	cfg.BPFDir = filepath.Join(bpfDir, "nameward")
	for _, r := range Check(t.Context(), cfg) {
		if !r.Met || r.Remedy != "" {
			t.Errorf("%s: %s, %s", r.Name, r.Detail, r.Remedy)
		}
	}
	if entries, err := os.ReadDir(bpfDir); err != nil || slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "nameward" }) {
		t.Errorf("check left %v, %v", entries, err)
	}
	cfg.BPFDir = filepath.Join(t.TempDir(), "not-bpffs")
	cfg.TrustedResolvers = []string{"nonsense"}
	requirements := Check(t.Context(), cfg)
	var unmet []string
	for _, r := range requirements {
		if !r.Met {
			unmet = append(unmet, r.Name)
			if r.Remedy == "" {
				t.Errorf("%s has no remedy", r.Name)
			}
		}
	}
	if want := []string{"bpf file system", "trusted resolvers"}; !slices.Equal(unmet, want) || AllMet(requirements) {
		t.Errorf("not met: %q, want %q", unmet, want)
	}
	var table, json strings.Builder
	if err := WriteTable(&table, requirements); err != nil || !strings.Contains(table.String(), "→") {
		t.Errorf("table without remedies: %v\n%s", err, table.String())
	}
	if err := WriteJSON(&json, requirements); err != nil || !strings.Contains(json.String(), `"met": false`) {
		t.Errorf("JSON: %v\n%s", err, json.String())
	}
}

// Several capabilities may be missing: each on a line of its own, below the first.
func TestTableOfADetailOfSeveralLines(t *testing.T) {
	var table strings.Builder
	requirements := []Requirement{{Name: "capabilities", Detail: "CAP_BPF is missing\nCAP_NET_ADMIN is missing"}}
	if err := WriteTable(&table, requirements); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(table.String(), "\n")
	if first, second := strings.Index(lines[1], "CAP_BPF"), strings.Index(lines[2], "CAP_NET_ADMIN"); first < 1 || first != second {
		t.Errorf("the lines of the detail are in columns %d and %d:\n%s", first, second, &table)
	}
}
