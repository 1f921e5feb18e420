package dataplane

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
	"github.com/nameward/nameward/dataplane/preflight"
)

func TestCheckMeetsThisMachine(t *testing.T) {
	bpfDir := netfiltertest.EnterNode(t)
	cfg := testConfig(t, "127.0.0.1:1")
	cfg.BPFDir = filepath.Join(bpfDir, "nameward")
	for _, r := range Check(t.Context(), cfg) {
		// Nobody answers in this network namespace, and nobody need keep the clock of the machine.
		far := strings.HasPrefix(r.Name, "resolver ") || r.Name == "clock synchronisation"
		if r.Level != preflight.OK && !far || r.Level == preflight.Failed {
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
		if r.Level == preflight.Failed {
			unmet = append(unmet, r.Name)
			if r.Remedy == "" {
				t.Errorf("%s has no remedy", r.Name)
			}
		}
	}
	if want := []string{"bpf file system", "iptables pinned programs", "ip6tables pinned programs", "trusted resolvers"}; !slices.Equal(unmet, want) || AllMet(requirements) {
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
	requirements := []Requirement{{Name: "capabilities", Level: preflight.Failed, Detail: "CAP_BPF is missing\nCAP_NET_ADMIN is missing"}}
	if err := WriteTable(&table, requirements); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(table.String(), "\n")
	if first, second := strings.Index(lines[1], "CAP_BPF"), strings.Index(lines[2], "CAP_NET_ADMIN"); first < 1 || first != second {
		t.Errorf("the lines of the detail are in columns %d and %d:\n%s", first, second, &table)
	}
}
