package compile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
)

var update = flag.Bool("update", false, "rewrite the rule sets in testdata")

// Each archive has policies.yaml, and for each node a file `node LABELS` with the rule set that it gets.
func TestCompile(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			snapshot := readSnapshot(t, archive.Files[0].Data)
			for i := range archive.Files[1:] {
				node := &archive.Files[1+i]
				got := ruleSetText(t, snapshot, node.Name)
				if *update {
					node.Data = got
				} else if diff := cmp.Diff(string(node.Data), string(got)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", node.Name, diff)
				}
			}
			if *update {
				if err := os.WriteFile(file, txtar.Format(archive), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func readSnapshot(t *testing.T, documents []byte) policy.Snapshot {
	t.Helper()
	snapshot := policy.Snapshot{DomainSets: map[string]*policy.DomainSet{}}
	for document := range bytes.SplitSeq(documents, []byte("---\n")) {
		text, err := yaml.YAMLToJSON(document)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte(`"name":"domainSets/`)) {
			message := &namewardv1.DomainSet{}
			if err := protojson.Unmarshal(text, message); err != nil {
				t.Fatal(err)
			}
			set, err := policy.ParseDomainSet(message)
			if err != nil {
				t.Fatal(err)
			}
			snapshot.DomainSets[set.Name] = set
			continue
		}
		message := &namewardv1.Policy{}
		if err := protojson.Unmarshal(text, message); err != nil {
			t.Fatal(err)
		}
		p, err := policy.Parse(message)
		if err != nil {
			t.Fatal(err)
		}
		snapshot.Policies = append(snapshot.Policies, p)
	}
	return snapshot
}

func ruleSetText(t *testing.T, snapshot policy.Snapshot, node string) []byte {
	t.Helper()
	labels := map[string]string{}
	for _, label := range strings.Fields(node)[1:] {
		key, value, _ := strings.Cut(label, "=")
		labels[key] = value
	}
	text, err := protojson.Marshal(compile.Compile(snapshot, labels).ToProto())
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// What Project says of two nodes decides that they share a rule set: it must never be wrong.
func TestEqualProjectionsGetEqualRuleSets(t *testing.T) {
	labels := rapid.MapOf(rapid.SampledFrom([]string{"a", `a"`, "b", ""}), rapid.SampledFrom([]string{"", "1", `"a"`, "2"}))
	rapid.Check(t, func(t *rapid.T) {
		var policies []*policy.Policy
		for i, selector := range rapid.SliceOfN(labels, 0, 5).Draw(t, "selectors") {
			p, err := policy.Parse(&namewardv1.Policy{
				Name: fmt.Sprintf("policies/p%d", i), NodeSelector: &namewardv1.NodeSelector{MatchLabels: selector},
			})
			if err != nil {
				t.Fatal(err)
			}
			policies = append(policies, p)
		}
		one, other := labels.Draw(t, "one"), labels.Draw(t, "other")
		counted := compile.Keys{}
		counted.Change(compile.Change{Added: policies})
		keys := counted.Sorted()
		if compile.Project(one, keys) == compile.Project(other, keys) &&
			compile.Compile(policy.Snapshot{Policies: policies}, one).ID() != compile.Compile(policy.Snapshot{Policies: policies}, other).ID() {
			t.Errorf("labels %q and %q look equal", one, other)
		}
	})
}

// withPatterns makes a policy of that many patterns below its own name.
func withPatterns(t *testing.T, name string, count int, selector map[string]string) *policy.Policy {
	t.Helper()
	return withDomains(t, name, count, "h%d."+name+".example", selector)
}

// withDomains makes a policy of so many patterns, each with its number where the format has it.
func withDomains(t *testing.T, name string, count int, format string, selector map[string]string) *policy.Policy {
	t.Helper()
	rule := &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Domains: texts(count, format)}
	return parsed(t, &namewardv1.Policy{
		Name: "policies/" + name, NodeSelector: &namewardv1.NodeSelector{MatchLabels: selector}, Rules: []*namewardv1.Rule{rule},
	})
}

func texts(count int, format string) []string {
	list := make([]string, count)
	for i := range list {
		list[i] = strings.ReplaceAll(format, "%d", fmt.Sprint(i))
	}
	return list
}

func TestAdmit(t *testing.T) {
	half := compile.MaxPatterns / 2
	web := map[string]string{"role": "web"}
	big := withPatterns(t, "big", half+1, nil)
	bigOfWeb := withPatterns(t, "web", half+1, web)
	general := func(name string, count int, pattern string) *policy.Policy {
		return withDomains(t, name, count, pattern, nil)
	}
	of := ruleset.MaxGeneralPatternsOfName
	sets := map[string]*policy.DomainSet{}
	withSet := func(name string, selector map[string]string, domains []string, sets ...string) *policy.Policy {
		return parsed(t, &namewardv1.Policy{
			Name: "policies/" + name, NodeSelector: &namewardv1.NodeSelector{MatchLabels: selector},
			Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, Domains: domains, DomainSets: sets}},
		})
	}
	for name, domains := range map[string][]string{
		"half":    texts(half, "h%d.half.example"),
		"other":   texts(half, "h%d.other.example"),
		"twin":    texts(half, "h%d.half.example"),
		"huge":    texts(compile.MaxPatterns+1, "h%d.huge.example"),
		"long":    texts(half+1, "h%d."+strings.Repeat("x", 60)+".example"),
		"fewer":   texts(half, "h%d."+strings.Repeat("x", 60)+".example"),
		"general": texts(of, "n%d-*.example.com"),
	} {
		sets["domainSets/"+name] = domainSet(t, name, domains)
	}
	tests := []struct {
		fact     string
		policies []*policy.Policy
		added    *policy.Policy
		nodes    []map[string]string
		refused  bool
	}{
		{"one policy is too big for any node", nil, withPatterns(t, "huge", compile.MaxPatterns+1, nil), nil, true},
		{"a node has both", []*policy.Policy{big}, bigOfWeb, []map[string]string{nil, web}, true},
		{"no node has both", []*policy.Policy{big}, bigOfWeb, []map[string]string{nil}, false},
		{"a policy takes the place of its former self", []*policy.Policy{big}, big, []map[string]string{nil}, false},
		{"the same patterns count once", []*policy.Policy{big}, renamed(t, big), []map[string]string{nil}, false},
		{"as many general patterns as a name may have", nil, general("g", of, "n%d-*.example.com"), nil, false},
		{"one general pattern of a name too many", nil, general("g", of+1, "n%d-*.example.com"), nil, true},
		{"one general pattern of the root too many", nil, general("g", of+1, "n%d.*"), nil, true},
		{"one general pattern above too many", []*policy.Policy{general("b", 1, "www%d.*.com")}, general("g", of, "*.n%d-*.example.com"), []map[string]string{nil}, true},
		{"general patterns beside", []*policy.Policy{general("a", of, "n%d-*.example.org")}, general("g", of, "n%d-*.example.com"), []map[string]string{nil}, false},
		{"as many general patterns as a node may have", nil, general("g", ruleset.MaxGeneralPatterns, "www.*.n%d.example"), nil, false},
		{"one general pattern too many", nil, general("g", ruleset.MaxGeneralPatterns+1, "www.*.n%d.example"), nil, true},
		{"other general patterns in place of as many", []*policy.Policy{general("g", of, "n%d-*.example.org"), general("a", 1, "a%d-*.com")}, general("g", of, "n%d-*.example.com"), []map[string]string{nil}, true},
		{"the same general patterns in place of themselves", []*policy.Policy{general("g", of, "n%d-*.example.com"), general("a", 1, "a%d-*.com")}, general("g", of, "n%d-*.example.com"), []map[string]string{nil}, false},
		{"a set is too big for any node", nil, withSet("a", nil, nil, "domainSets/huge"), nil, true},
		{"no policy in force names the set that is too big", nil, disabled(t, withSet("a", nil, nil, "domainSets/huge")), []map[string]string{nil}, false},
		{"a set counts once, whoever names it", []*policy.Policy{withSet("a", nil, nil, "domainSets/half"), withSet("b", nil, nil, "domainSets/half")}, withSet("c", nil, nil, "domainSets/half", "domainSets/other"), []map[string]string{nil}, false},
		{"what two sets share counts once", []*policy.Policy{withSet("a", nil, nil, "domainSets/half", "domainSets/other")}, withSet("b", nil, nil, "domainSets/twin"), []map[string]string{nil}, false},
		{"sets and patterns count together", []*policy.Policy{withSet("a", nil, nil, "domainSets/half", "domainSets/other")}, withSet("b", nil, []string{"one.more.example"}), []map[string]string{nil}, true},
		{"a node has the sets of both", []*policy.Policy{withSet("a", nil, nil, "domainSets/half")}, withSet("b", web, []string{"one.more.example"}, "domainSets/other"), []map[string]string{nil, web}, true},
		{"no node has the sets of both", []*policy.Policy{withSet("a", nil, nil, "domainSets/half")}, withSet("b", web, []string{"one.more.example"}, "domainSets/other"), []map[string]string{nil}, false},
		{"another set in place of one that is shared", []*policy.Policy{big, withSet("b", nil, nil, "domainSets/twin"), withSet("c", nil, nil, "domainSets/half")}, withSet("b", nil, nil, "domainSets/other"), []map[string]string{nil}, true},
		{"other patterns in place of as many that are shared", []*policy.Policy{big, renamed(t, big)}, named(t, withPatterns(t, "x", half+1, nil), "policies/copy"), []map[string]string{nil}, true},
		{"long names take more room", nil, withSet("a", nil, nil, "domainSets/long"), nil, true},
		{"so many long names as there is room for", nil, withSet("a", nil, nil, "domainSets/fewer"), nil, false},
		{"general patterns of a set count", nil, withSet("a", nil, []string{"one-*.example.com"}, "domainSets/general"), nil, true},
		{"a star for every name is no general pattern", []*policy.Policy{general("g", of, "n%d-*.example.com")}, general("a", 1, "*"), []map[string]string{nil}, false},
	}
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			before := policy.Snapshot{Policies: test.policies, DomainSets: sets}
			var err error
			if at := slices.IndexFunc(test.policies, func(p *policy.Policy) bool { return p.Name == test.added.Name }); at < 0 || compile.AsksForMore(test.policies[at], test.added) {
				err = compile.Admit(before.WithPolicy(test.added), []*policy.Policy{test.added}, test.nodes)
			}
			var full *compile.CapacityError
			if got := errors.As(err, &full); got != test.refused {
				t.Errorf("Admit = %v, want refused %t", err, test.refused)
			}
		})
	}
}

func renamed(t *testing.T, p *policy.Policy) *policy.Policy {
	t.Helper()
	return named(t, p, "policies/copy")
}

func named(t *testing.T, p *policy.Policy, name string) *policy.Policy {
	t.Helper()
	return parsed(t, &namewardv1.Policy{Name: name, Rules: p.Message.GetRules()})
}

func disabled(t *testing.T, p *policy.Policy) *policy.Policy {
	t.Helper()
	return parsed(t, &namewardv1.Policy{Name: p.Name, Mode: namewardv1.Policy_DISABLED, Rules: p.Message.GetRules()})
}

func parsed(t *testing.T, message *namewardv1.Policy) *policy.Policy {
	t.Helper()
	out, err := policy.Parse(message)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// domainSet makes a set of texts.
func domainSet(t *testing.T, name string, domains []string) *policy.DomainSet {
	t.Helper()
	list, err := policy.ParseDomains(domains, 0)
	if err != nil {
		t.Fatal(err)
	}
	return &policy.DomainSet{DomainSet: ruleset.NewDomainSet("domainSets/"+name, list)}
}

// A change of a set is judged by what the policies that name it put on a node.
func TestAdmitDomainSet(t *testing.T) {
	half := compile.MaxPatterns / 2
	web := map[string]string{"role": "web"}
	snapshot := policy.Snapshot{
		Policies: []*policy.Policy{
			withPatterns(t, "everywhere", half, nil),
			parsed(t, &namewardv1.Policy{
				Name: "policies/web", NodeSelector: &namewardv1.NodeSelector{MatchLabels: web},
				Rules: []*namewardv1.Rule{{Action: namewardv1.Rule_ALLOW, DomainSets: []string{"domainSets/s"}}},
			}),
		},
		DomainSets: map[string]*policy.DomainSet{"domainSets/s": domainSet(t, "s", nil)},
	}
	for _, test := range []struct {
		fact    string
		set     *policy.DomainSet
		nodes   []map[string]string
		refused bool
	}{
		{"as much as a node holds", domainSet(t, "s", texts(half, "h%d.s.example")), []map[string]string{nil, web}, false},
		{"one more", domainSet(t, "s", texts(half+1, "h%d.s.example")), []map[string]string{nil, web}, true},
		{"one more where no node has both", domainSet(t, "s", texts(half+1, "h%d.s.example")), []map[string]string{nil}, false},
		{"no policy names it", domainSet(t, "other", texts(2*compile.MaxPatterns, "h%d.s.example")), []map[string]string{nil, web}, false},
	} {
		t.Run(test.fact, func(t *testing.T) {
			names := func(p *policy.Policy) bool { return p.Names(test.set.Name) }
			concerned := slices.DeleteFunc(slices.Clone(snapshot.Policies), func(p *policy.Policy) bool { return !names(p) })
			err := compile.Admit(snapshot.WithDomainSet(test.set), concerned, test.nodes)
			var full *compile.CapacityError
			if got := errors.As(err, &full); got != test.refused {
				t.Errorf("Admit = %v, want refused %t", err, test.refused)
			}
			if test.refused && (full.Limit != compile.MaxPatterns || full.Count != 2*half+1) {
				t.Errorf("got %v, want the limit %d named", err, compile.MaxPatterns)
			}
		})
	}
}
