package datapath

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// home returns a name for this test's control groups at the root, and the paths of some below it: slices
// and units as systemd nests them, and names that only look like units.
func homeOfCgroups(t testing.TB) (home string, paths []string) {
	t.Helper()
	home = fmt.Sprintf("/nwtest%d.slice", os.Getpid())
	for _, below := range []string{"", "/a.slice", "/a.slice/a.slice", "/a.slice/b.service", "/a.slice/b.service/x/y", "/x", "/x/b.service", "/_cpu.service", "/" + strings.Repeat("n", 255)} {
		paths = append(paths, home+below)
	}
	return home, paths
}

// A test run has a socket, made by this process: it is in this process's control group, and root's.
func TestProcessesOfTheKernel(t *testing.T) {
	f := newFixture(t)
	groups := bpftest.NewCgroups(t)
	home, paths := homeOfCgroups(t)
	for _, path := range paths {
		groups.Make(path)
	}
	units := []string{home[1:], "a.slice", "b.service", "cpu.service", "_cpu.service"}
	uids := []uint32{0, 7}
	drawWorkload := rapid.Custom(func(t *rapid.T) ruleset.Workload {
		var w ruleset.Workload
		if rapid.Bool().Draw(t, "by user") {
			w.UID = &uids[rapid.IntRange(0, 1).Draw(t, "user")]
		}
		if rapid.Bool().Draw(t, "by path") {
			w.Cgroup = rapid.SampledFrom(append(paths, "/", home+"/a.slice/b.service/x")).Draw(t, "path")
		}
		if rapid.Bool().Draw(t, "by unit") {
			w.Unit = rapid.SampledFrom(units).Draw(t, "unit")
		}
		w.Host = !w.SelectsProcesses()
		return w
	})
	drawPolicy := rapid.Custom(func(t *rapid.T) ruleset.Policy {
		return ruleset.Policy{
			Mode:      rapid.SampledFrom([]ruleset.Mode{ruleset.Enforce, ruleset.Audit}).Draw(t, "mode"),
			Workloads: rapid.SliceOfN(drawWorkload, 1, 3).Draw(t, "workloads"),
			Rules: []ruleset.Rule{{
				Action: rapid.SampledFrom([]ruleset.Action{ruleset.Allow, ruleset.Deny}).Draw(t, "action"),
				Ports:  []ruleset.Ports{{Protocol: ruleset.TCP, First: 1, Last: rapid.Uint16Range(1, 3).Draw(t, "last")}},
			}},
		}
	})
	rapid.Check(t, func(rt *rapid.T) {
		policies := rapid.SliceOfN(drawPolicy, 1, 3).Draw(rt, "policies")
		for i := range policies {
			policies[i].Name = fmt.Sprintf("policies/%d", i)
		}
		rules := ruleset.New(policies)
		f.apply(t, rules)
		path := rapid.SampledFrom(append(paths, "/")).Draw(rt, "path")
		groups.Enter(path)
		for port := range uint16(4) {
			c := ruleset.Connection{Local: true, UID: &uids[0], Cgroup: path, Protocol: ruleset.TCP, Port: port + 1}
			e := rules.Explain(c)
			if got := f.opens(t, fmt.Sprintf("192.0.2.7:%d", port+1)); got != (e.Verdict == ruleset.Allow) {
				rt.Fatalf("%s, port %d, under %+v: opens is %t, want %v", path, port+1, rules.Policies, got, e.Verdict)
			}
		}
	})
	if n, err := f.kernel.counter(bpf.DatapathCounterCOUNTER_UNKNOWN_CGROUP); n != 0 || err != nil {
		t.Errorf("%d connections of unknown control groups, %v", n, err)
	}
}

// What is known of a control group is forgotten when the rules name other ones.
func TestCgroupsFollowTheRules(t *testing.T) {
	f := newFixture(t)
	groups := bpftest.NewCgroups(t)
	home, _ := homeOfCgroups(t)
	groups.Make(home + "/b.service")
	groups.Enter(home + "/b.service")
	denying := func(workload string) *ruleset.RuleSet {
		return policies(t, `{"name": "policies/p", "mode": "ENFORCE", "established": "CUT", "workloads": [`+workload+`], "rules": []}`)
	}
	other, own, unit := denying(`{"cgroup": "/nwother"}`), denying(`{"cgroup": "`+home+`"}`), denying(`{"systemdUnit": "b.service"}`)
	for _, step := range []struct {
		rules *ruleset.RuleSet
		opens bool
	}{{other, true}, {own, false}, {other, true}, {unit, false}, {unit, false}, {other, true}, {own, false}} {
		f.apply(t, step.rules)
		for range 2 { // found out, then known
			if got := f.opens(t, "192.0.2.7:443"); got != step.opens {
				t.Fatalf("under %+v: opens is %t", step.rules.Policies[0].Workloads[0], got)
			}
		}
		f.restart(t)
		if got := f.opens(t, "192.0.2.7:443"); got != step.opens {
			t.Fatalf("under %+v, adopted: opens is %t", step.rules.Policies[0].Workloads[0], got)
		}
	}
}

// Without knowing the control group, a policy in mode ENFORCE cannot be enforced: what is not always
// allowed is denied. In mode AUDIT it stops nothing.
func TestUnknownCgroupsFailClosed(t *testing.T) {
	f := newFixture(t)
	rules := func(mode string) *ruleset.RuleSet {
		return policies(t, `{"name": "policies/p", "mode": "`+mode+`", "established": "CUT", "workloads": [{"systemdUnit": "no.service"}], "rules": []}`)
	}
	f.apply(t, rules("ENFORCE"))
	if !f.opens(t, "192.0.2.7:443") {
		t.Fatal("a process that no policy selects is denied")
	}
	// A control group is outside of what the agent sees, as with an agent in a namespace of its own.
	hideRoot := func() {
		table := bpf.DatapathCgroupTable{Epoch: 1, Root: 1 << 62}
		for generation := range uint32(2) {
			if err := f.kernel.CgroupTables.Put(generation, &table); err != nil {
				t.Fatal(err)
			}
		}
	}
	hideRoot()
	if f.opens(t, "192.0.2.7:443") || !f.opens(t, testResolver.String()) {
		t.Error("want all denied but what is always allowed")
	}
	if n, err := f.kernel.counter(bpf.DatapathCounterCOUNTER_UNKNOWN_CGROUP); n != 2 || err != nil {
		t.Errorf("%d counted, %v, want 2", n, err)
	}
	f.apply(t, rules("AUDIT"))
	hideRoot()
	if !f.opens(t, "192.0.2.7:443") {
		t.Error("a policy in mode AUDIT denies")
	}
}

// More policies than a connection can have would have to be left out: it is denied instead.
func TestTooManyCgroupsFailClosed(t *testing.T) {
	f := newFixture(t)
	groups := bpftest.NewCgroups(t)
	home, _ := homeOfCgroups(t)
	path, list := home, []string{}
	for i := range 8 {
		path += fmt.Sprintf("/%d", i)
		list = append(list, fmt.Sprintf(`{"name": "policies/%d", "mode": "ENFORCE", "established": "CUT", "workloads": [{"cgroup": %q}], "rules": [{"action": "ALLOW"}]}`, i, path))
	}
	groups.Make(path)
	f.apply(t, policies(t, list...))
	groups.Enter(path[:len(path)-2])
	if !f.opens(t, "192.0.2.7:443") {
		t.Error("in 7 selected groups: denied, want what the rules allow")
	}
	groups.Enter(path)
	if f.opens(t, "192.0.2.7:443") {
		t.Error("in 8: opens, want it denied")
	}
	if n, err := f.kernel.counter(bpf.DatapathCounterCOUNTER_TOO_MANY_CGROUPS); n != 1 || err != nil {
		t.Errorf("%d counted, %v, want 1", n, err)
	}
}

// Slices may be nested deeper than the kernel walks; nothing else matters there.
func TestDeepCgroups(t *testing.T) {
	f := newFixture(t)
	groups := bpftest.NewCgroups(t)
	home, _ := homeOfCgroups(t)
	deep := home + "/x" + strings.Repeat("/y", 70)
	slices := home + strings.Repeat("/a.slice", 70)
	groups.Make(deep)
	groups.Make(slices)
	f.apply(t, policies(t, `{"name": "policies/p", "mode": "ENFORCE", "established": "CUT", "workloads": [{"systemdUnit": "b.service"}, {"cgroup": "`+home+`/x/y/y"}], "rules": [{"action": "DENY"}]}`,
		`{"name": "policies/q", "priority": -1, "mode": "ENFORCE", "established": "CUT", "workloads": [{"cgroup": "`+home+`"}], "rules": [{"action": "ALLOW"}]}`))
	groups.Enter(deep)
	if !f.opens(t, "192.0.2.7:443") {
		t.Error("deep below a name that is no slice: denied")
	}
	groups.Enter(slices)
	if f.opens(t, "192.0.2.7:443") {
		t.Error("deep below slices: opens, though a unit above may be selected")
	}
}

// Where control groups cannot be told, policies that select by them are refused, and the others are not.
func TestWithoutCgroups(t *testing.T) {
	f := newFixture(t)
	dir := bpftest.NewCgroups(t).Dir("/")
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with its mounts
		failed <- func() error {
			if err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Unmount(dir, unix.MNT_DETACH)); err != nil {
				return err
			}
			if err := f.Apply(t.Context(), hostRules(t)); err != nil {
				return err
			}
			rules := policies(t, `{"name": "policies/p", "mode": "ENFORCE", "established": "CUT", "workloads": [{"systemdUnit": "web.service"}], "rules": []}`)
			if err := f.Apply(t.Context(), rules); !errors.Is(err, errNoCgroups) {
				return fmt.Errorf("apply a policy of a unit: got %w, want errNoCgroups", err)
			}
			return nil
		}()
	}()
	if err := <-failed; err != nil {
		t.Error(err)
	}
	if f.opens(t, "192.0.2.7:443") {
		t.Error("what was in force before is not any more")
	}
}

func TestCgroupRoot(t *testing.T) {
	groups := bpftest.NewCgroups(t)
	if dir, id, err := cgroupRoot(); err != nil || dir != groups.Dir("/") || id != groups.ID("/") {
		t.Errorf("got %d at %s, %v, want %d at %s", id, dir, err, groups.ID("/"), groups.Dir("/"))
	}
}
