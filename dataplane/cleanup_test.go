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
	release, err := lockBoth(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
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
	if _, err := filter.Ensure(t.Context(), func([]string) {}); err != nil {
		t.Fatal(err)
	}
	rules := someRules()
	disk := subscribe.NewDisk(cfg.StateDir, slog.New(slog.DiscardHandler))
	if err := disk.Save(&enforce.Revision{StoreID: "store", Number: 1, Rules: rules, ID: rules.ID()}); err != nil {
		t.Fatal(err)
	}
}
