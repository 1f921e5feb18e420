package lower_test

import (
	"cmp"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/lower"
)

var update = flag.Bool("update", false, "rewrite the tables that testdata expects")

// Each file of testdata holds rule sets (`1.json`, …), lowered one after the other by one state, and
// behind each the tables that it makes.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test data: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := &txtar.Archive{Comment: archive.Comment}
			state := lower.NewState(1, lower.Memory{})
			for _, f := range archive.Files {
				if !strings.HasSuffix(f.Name, ".json") {
					continue
				}
				tables, err := state.Lower(parse(t, f.Data))
				if err != nil {
					t.Fatal(err)
				}
				got.Files = append(got.Files, f, txtar.File{
					Name: strings.TrimSuffix(f.Name, ".json") + ".tables",
					Data: []byte(describe(state, tables)),
				})
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := gocmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); diff != "" {
				t.Errorf("tables differ (-want +got):\n%s", diff)
			}
		})
	}
}

func parse(t *testing.T, text []byte) *ruleset.RuleSet {
	t.Helper()
	var message agentv1.RuleSet
	if err := protojson.Unmarshal(text, &message); err != nil {
		t.Fatal(err)
	}
	rules, err := ruleset.FromProto(&message)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func describe(s *lower.State, t *lower.Tables) string {
	var b strings.Builder
	fmt.Fprintf(&b, "flags %v\nchanged %v\n", flagNames(t.Flags), t.Changed)
	for _, name := range slices.Sorted(s.Names()) {
		sets := s.Sets(name)
		fmt.Fprintf(&b, "name %s exact %d below %d list %d\n", name, sets.Exact, sets.Below, sets.List)
	}
	fmt.Fprintf(&b, "every %d list %d\n", t.Patterns.Every, t.Patterns.List)
	for _, place := range slices.Sorted(maps.Keys(t.Patterns.Table)) {
		fmt.Fprintf(&b, "general %d %+v\n", place, t.Patterns.Table[place])
	}
	for _, p := range t.Sources {
		fmt.Fprintf(&b, "source %v class %d\n", p.Prefix, p.Class)
	}
	for _, p := range t.Destinations {
		fmt.Fprintf(&b, "destination %v class %d\n", p.Prefix, p.Class)
	}
	for _, link := range []string{"lo", "eth0", "eth1", "veth12"} {
		fmt.Fprintf(&b, "interface %s class %d\n", link, t.Interfaces.Class(link))
	}
	for _, key := range slices.SortedFunc(maps.Keys(t.Cgroups.Nodes), func(a, b lower.CgroupKey) int {
		return cmp.Or(cmp.Compare(a.Parent, b.Parent), cmp.Compare(a.Name, b.Name))
	}) {
		fmt.Fprintf(&b, "cgroup %q of %d is %+v\n", key.Name, key.Parent, t.Cgroups.Nodes[key])
	}
	for _, pair := range slices.SortedFunc(maps.Keys(t.Cgroups.Pairs), func(a, b lower.CgroupPair) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Unit, b.Unit))
	}) {
		fmt.Fprintf(&b, "cgroups %+v class %d\n", pair, t.Cgroups.Pairs[pair])
	}
	for _, key := range slices.SortedFunc(maps.Keys(t.Workloads), func(a, b lower.WorkloadKey) int {
		return cmp.Or(cmp.Compare(fmt.Sprint(a.Local), fmt.Sprint(b.Local)), cmp.Compare(a.Source, b.Source), cmp.Compare(a.Interface, b.Interface))
	}) {
		fmt.Fprintf(&b, "workload %+v is %+v\n", key, t.Workloads[key])
	}
	for _, key := range slices.SortedFunc(maps.Keys(t.Verdicts), func(a, b lower.VerdictKey) int {
		return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	}) {
		fmt.Fprintf(&b, "verdict %+v\n", key)
		for _, e := range t.Verdicts[key] {
			fmt.Fprintf(&b, "  %+v\n", e)
		}
	}
	return b.String()
}

// flagNames are the flags that are set.
func flagNames(flags lower.Flags) (names []string) {
	value := reflect.ValueOf(flags)
	for i := range value.NumField() {
		if value.Field(i).Bool() {
			names = append(names, value.Type().Field(i).Name)
		}
	}
	return names
}
