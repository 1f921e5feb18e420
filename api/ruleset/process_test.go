package ruleset_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

func TestProcessesOfAWorkload(t *testing.T) {
	uid := func(id uint32) *uint32 { return &id }
	local := func(id *uint32, cgroup string) ruleset.Connection {
		return ruleset.Connection{Local: true, UID: id, Cgroup: cgroup}
	}
	tests := []struct {
		fact       string
		workload   *namewardv1.Workload
		connection ruleset.Connection
		want       bool
	}{
		{"a user's own", &namewardv1.Workload{Uid: uid(0)}, local(uid(0), "/"), true},
		{"not another user's", &namewardv1.Workload{Uid: uid(1)}, local(uid(0), "/"), false},
		{"nothing that no process sends", &namewardv1.Workload{Uid: uid(0)}, local(nil, ""), false},
		{"the host sends that too", &namewardv1.Workload{Host: true}, local(nil, ""), true},
		{"host says nothing more beside uid", &namewardv1.Workload{Host: true, Uid: uid(1)}, local(uid(0), "/"), false},
		{"a control group", &namewardv1.Workload{Cgroup: "/a.slice"}, local(nil, "/a.slice"), true},
		{"and below", &namewardv1.Workload{Cgroup: "/a.slice/"}, local(nil, "/a.slice/b/c"), true},
		{"not beside", &namewardv1.Workload{Cgroup: "/a"}, local(nil, "/ab"), false},
		{"not above", &namewardv1.Workload{Cgroup: "/a/b"}, local(nil, "/a"), false},
		{"below the root is everything", &namewardv1.Workload{Cgroup: "/"}, local(nil, "/a"), true},
		{"a unit, wherever it is", &namewardv1.Workload{SystemdUnit: "w.service"}, local(nil, "/a.slice/a-b.slice/w.service"), true},
		{"and below", &namewardv1.Workload{SystemdUnit: "w.service"}, local(nil, "/w.service/main/x"), true},
		{"a slice is a unit", &namewardv1.Workload{SystemdUnit: "a.slice"}, local(nil, "/a.slice/w.service"), true},
		{"a name inside a unit is no unit", &namewardv1.Workload{SystemdUnit: "w.service"}, local(nil, "/user.slice/user@7.service/w.service"), false},
		{"nor one below a name that systemd did not give", &namewardv1.Workload{SystemdUnit: "w.service"}, local(nil, "/docker/w.service"), false},
		{"an escaped unit", &namewardv1.Workload{SystemdUnit: "cpu.service"}, local(nil, "/system.slice/_cpu.service"), true},
		{"the unit that has its name is escaped itself", &namewardv1.Workload{SystemdUnit: "_cpu.service"}, local(nil, "/system.slice/_cpu.service"), false},
		{"all fields hold", &namewardv1.Workload{Uid: uid(5), Cgroup: "/a.slice", SystemdUnit: "w.service"}, local(uid(5), "/a.slice/w.service"), true},
		{"one does not", &namewardv1.Workload{Uid: uid(5), Cgroup: "/b.slice", SystemdUnit: "w.service"}, local(uid(5), "/a.slice/w.service"), false},
		{"forwarded traffic is of no process", &namewardv1.Workload{Cgroup: "/"}, ruleset.Connection{Cgroup: "/"}, false},
	}
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			rules := ruleset.New([]ruleset.Policy{policy(t, &namewardv1.Policy{Workloads: []*namewardv1.Workload{test.workload}})})
			if got := rules.Explain(test.connection).Enforced; got != test.want {
				t.Errorf("%v selects %+v: got %t, want %t", test.workload, test.connection, got, test.want)
			}
		})
	}
}

func TestFaultsOfProcesses(t *testing.T) {
	for value, reason := range map[string]string{
		"/sys/fs/cgroup/a.slice":       "leave out /sys/fs/cgroup",
		"a.slice":                      "begin with `/`",
		"/a//b":                        "has a level \"\"",
		"/a/../b":                      "has a level \"..\"",
		"/" + strings.Repeat("x", 256): "has a level",
		strings.Repeat("/x", 33):       "more than 32 levels",
	} {
		expectFault(t, &namewardv1.Workload{Cgroup: value}, "workloads[0].cgroup", value, reason)
	}
	for value, reason := range map[string]string{
		"web":          "is no systemd unit that has a control group",
		"a.timer":      "is no systemd unit that has a control group",
		".service":     "is no systemd unit that has a control group",
		"web@.service": "is a template",
		"a/b.service":  "is no name of a systemd unit",
		"-.slice":      "set `host`",
		"_" + strings.Repeat("x", 246) + ".service": "too long",
	} {
		expectFault(t, &namewardv1.Workload{SystemdUnit: value}, "workloads[0].systemd_unit", value, reason)
	}
	expectFault(t, &namewardv1.Workload{Cgroup: "/a", Cidrs: []string{"10.0.0.0/8"}}, "workloads[0].cgroup", "/a", "make two workloads of it")
}

func expectFault(t *testing.T, workload *namewardv1.Workload, field, value, reason string) {
	t.Helper()
	_, err := ruleset.ParsePolicy(&namewardv1.Policy{Workloads: []*namewardv1.Workload{workload}})
	var fault *ruleset.FieldError
	if !errors.As(err, &fault) || fault.Field != field || fault.Value != value || !strings.Contains(fault.Reason, reason) {
		t.Errorf("%v: got %v, want a fault of %s that says %q", workload, err, field, reason)
	}
}

// What was written in several ways and means the same has the same id, and what does not, another.
func TestProcessesAreCanonical(t *testing.T) {
	rules := func(w *namewardv1.Workload) *ruleset.RuleSet {
		return ruleset.New([]ruleset.Policy{policy(t, &namewardv1.Policy{Name: "policies/p", Workloads: []*namewardv1.Workload{w}})})
	}
	all := []*namewardv1.Workload{
		{Host: true}, {Uid: proto.Uint32(0)}, {Uid: proto.Uint32(7)}, {Cgroup: "/a.slice"}, {SystemdUnit: "a.slice"},
		{Uid: proto.Uint32(7), Cgroup: "/a.slice", SystemdUnit: "a.slice"},
	}
	var ids []ruleset.ID
	for _, w := range all {
		want := rules(w)
		got, err := ruleset.FromProto(want.ToProto())
		if err != nil || got.ID() != want.ID() || slices.Contains(ids, got.ID()) {
			t.Errorf("%v: came back as %v, %v; known ids %v", w, got, err, ids)
		}
		ids = append(ids, got.ID())
	}
	if rules(&namewardv1.Workload{Cgroup: "/a.slice/", Host: true}).ID() != ids[3] {
		t.Error("`/a.slice/` and host is not `/a.slice`")
	}
}
