package bpf_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const (
	byUser   = bpf.DatapathGenerationFlagGENERATION_ENFORCES | bpf.DatapathGenerationFlagGENERATION_USERS
	byCgroup = bpf.DatapathGenerationFlagGENERATION_ENFORCES | bpf.DatapathGenerationFlagGENERATION_CGROUPS | bpf.DatapathGenerationFlagGENERATION_CGROUPS_ENFORCED
	epoch    = 5
	class    = 3
)

// newProcessGate is a gate that judges the node's own processes by their control groups.
func newProcessGate(t testing.TB, groups *bpftest.Cgroups, options ...func(*ebpf.CollectionSpec)) *gate {
	t.Helper()
	g := &gate{Datapath: bpftest.Load(t, 1, options...), t: t}
	g.flags(byCgroup)
	g.Put(g.CgroupTables, uint32(0), bpf.DatapathCgroupTable{Epoch: epoch, Root: groups.ID("/")})
	return g
}

// unit gives a unit's control group a class.
func (g *gate) unit(name string, class uint32) {
	g.t.Helper()
	var key bpf.DatapathCgroupKey
	copy(key.Name[:], name)
	g.Put(g.Cgroups, key, bpf.DatapathCgroupNode{Class: class})
}

func localKey(uid, class uint32) bpf.DatapathWorkloadKey {
	return bpf.DatapathWorkloadKey{Origin: bpf.DatapathOriginORIGIN_LOCAL, Source: uid, Interface: class}
}

// enterUnit moves this process, and with it the sockets of test runs, into a unit's control group.
func enterUnit(t testing.TB, groups *bpftest.Cgroups) string {
	t.Helper()
	path := fmt.Sprintf("/nwbpf%d.slice/web.service", os.Getpid())
	groups.Make(path)
	groups.Enter(path)
	return path
}

// An entry of what is known may be another's while it is read: what does not fit is found out anew.
func TestTornCgroupsAreFoundOutAnew(t *testing.T) {
	groups := bpftest.NewCgroups(t)
	g := newProcessGate(t, groups)
	path := enterUnit(t, groups)
	g.unit("web.service", class)
	g.workload(localKey(0, class), enforced)
	key := bpf.DatapathCgroupKnownKey{Epoch: epoch, Cgroup: groups.ID(path)}
	var known bpf.DatapathCgroupKnown
	for _, tear := range []func(){
		func() {},
		func() { known.Classes.Count = 0 },
		func() { known.Classes.Class[0] = 9 },
		func() { known.Seal++ },
		func() { known = bpf.DatapathCgroupKnown{} },
	} {
		tear()
		if known.Seal != 0 || known.Classes.Count != 0 {
			g.Put(g.CgroupsKnown, key, known)
		}
		if verdict := g.Run(g.EgressLocal, connect(bpftest.TCP, "192.0.2.1:443")); verdict != 1 {
			t.Errorf("with %+v known: verdict %d, want it denied", known, verdict)
		}
		if err := g.CgroupsKnown.Lookup(key, &known); err != nil {
			t.Fatal(err)
		}
		if known.Classes.Count != 1 || known.Classes.Class[0] != class {
			t.Errorf("known is %+v", known)
		}
	}
}

// A question is refused to a process by the same classes, and never because they cannot be told.
func TestQuestionsOfAUnit(t *testing.T) {
	groups := bpftest.NewCgroups(t)
	e := newExchange(t)
	g := &gate{Datapath: e.Datapath, t: t}
	enterUnit(t, groups)
	g.unit("web.service", class)
	g.workload(localKey(0, class), enforced)
	g.rules(component(bpf.DatapathComponentCOMPONENT_ANY_QUESTION, 0), every(1, deny))
	g.flags(byCgroup | bpf.DatapathGenerationFlagGENERATION_REFUSES)
	ask := func() uint32 {
		query := pack(t, e.ask("www.example.com", 1))
		return g.Run(g.DnsQueryLocal, bpftest.Datagram(e.client, e.resolver, query))
	}
	if ask() != 0 {
		t.Error("refused though the root is not known")
	}
	g.Put(g.CgroupTables, uint32(0), bpf.DatapathCgroupTable{Epoch: epoch, Root: groups.ID("/")})
	if ask() != 1 {
		t.Error("asked, want it refused to the unit")
	}
	groups.Enter("/")
	if ask() != 0 {
		t.Error("refused to a process outside of the unit")
	}
}

// BenchmarkProcess measures what telling the node's own processes apart adds to a verdict.
func BenchmarkProcess(b *testing.B) {
	anything := component(bpf.DatapathComponentCOMPONENT_ANY, 0)
	run := func(fact string, prepare func(*testing.B, *bpftest.Cgroups) *gate) {
		b.Run(fact, func(b *testing.B) {
			g := prepare(b, bpftest.NewCgroups(b))
			g.rules(anything, every(0, 0))
			measure(b, g.EgressLocal, connect(bpftest.TCP, "192.0.2.1:443"))
		})
	}
	run("host", func(b *testing.B, _ *bpftest.Cgroups) *gate {
		g := newGate(b, enforced)
		g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES)
		return g
	})
	run("user", func(b *testing.B, _ *bpftest.Cgroups) *gate {
		g := newGate(b, enforced)
		g.flags(byUser)
		g.workload(localKey(1, 0), enforced)
		return g
	})
	unit := func(levels int, options ...func(*ebpf.CollectionSpec)) func(*testing.B, *bpftest.Cgroups) *gate {
		return func(b *testing.B, groups *bpftest.Cgroups) *gate {
			g := newProcessGate(b, groups, options...)
			path := fmt.Sprintf("/nwbpf%d.slice", os.Getpid()) + strings.Repeat("/kubepods-burstable.slice", levels-2) + "/web.service"
			groups.Make(path)
			groups.Enter(path)
			g.unit("web.service", class)
			g.workload(localKey(0, class), enforced)
			return g
		}
	}
	run("unit, known", unit(3))
	for _, levels := range []int{2, 3, 5, 10} {
		run(fmt.Sprintf("unit, found out each time, %d levels", levels), unit(levels, knowNothing))
	}
}

// knowNothing leaves no room to keep what is found out.
func knowNothing(spec *ebpf.CollectionSpec) {
	m := spec.Maps[bpf.DatapathMapCgroupsKnown]
	m.Type, m.MaxEntries = ebpf.Hash, 1
	m.Contents = []ebpf.MapKV{{Key: bpf.DatapathCgroupKnownKey{}, Value: bpf.DatapathCgroupKnown{}}}
}
