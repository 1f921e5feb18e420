package bpf_test

import (
	"math/bits"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

const (
	told       = bpf.DatapathCounterCOUNTER_FLOW_EVENT
	suppressed = bpf.DatapathCounterCOUNTER_FLOW_SUPPRESSED
	lost       = bpf.DatapathCounterCOUNTER_FLOW_LOST
)

// flowOf is the event of a packet from source, as far as every test expects it.
func flowOf(protocol uint8, from, to string, flags bpf.DatapathFlowFlag) bpf.DatapathFlowEvent {
	source, destination := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	return bpf.DatapathFlowEvent{
		Type: bpf.DatapathEventTypeEVENT_FLOW, Flags: flags, RuleSet: 0xfeed,
		Source: bpftest.Addr(source.Addr()), SourcePort: bits.ReverseBytes16(source.Port()),
		Destination: bpftest.Addr(destination.Addr()), DestinationPort: bits.ReverseBytes16(destination.Port()),
		Protocol: protocol, Ifindex: 1,
		// What no rule decided has no position.
		Enforced: 1<<32 - 1, Audited: 1<<32 - 1,
	}
}

// wantFlow runs a program on a packet and compares the event, its time aside.
func (g *gate) wantFlow(fact string, program *ebpf.Program, packet []byte, want bpf.DatapathFlowEvent) {
	g.t.Helper()
	before := bpftest.Now(g.t)
	g.RunFrom(program, 1, packet)
	flows := g.Flows()
	if len(flows) != 1 {
		g.t.Errorf("%s: %d events, want 1", fact, len(flows))
		return
	}
	got := flows[0]
	if seen := time.Duration(got.SeenAtNs); seen < before || seen > bpftest.Now(g.t) {
		g.t.Errorf("%s: seen at %v, want now (%v)", fact, seen, before)
	}
	got.SeenAtNs = 0
	if diff := cmp.Diff(want, got.DatapathFlowEvent); diff != "" {
		g.t.Errorf("%s (-want +got):\n%s", fact, diff)
	}
}

func TestFlowEvents(t *testing.T) {
	const (
		isDenied  = bpf.DatapathFlowFlagFLOW_DENIED
		isAudited = bpf.DatapathFlowFlagFLOW_AUDITED
		byRule    = bpf.DatapathFlowFlagFLOW_ENFORCED_RULE
		auditRule = bpf.DatapathFlowFlagFLOW_AUDITED_RULE
		local     = bpf.DatapathFlowFlagFLOW_LOCAL | bpf.DatapathFlowFlagFLOW_UID // a test run has a socket, root's
	)
	g := newGate(t, enforced)
	g.Put(g.RuleSets, uint32(0), uint64(0xfeed))
	const four, six, to4, to6 = "10.1.0.7:40000", "[fd01::7]:40000", "192.0.2.1:443", "[2001:db8::1]:443"
	g.wantFlow("TCP, no rule", g.EgressForwarded, connect(bpftest.TCP, to4), flowOf(bpftest.TCP, four, to4, isDenied))
	g.wantFlow("UDP over IPv6", g.EgressForwarded, connect(bpftest.UDP, to6), flowOf(bpftest.UDP, six, to6, isDenied))
	ping := flowOf(bpftest.ICMP, "10.1.0.7:0", "192.0.2.1:0", isDenied)
	g.wantFlow("ICMP", g.EgressForwarded, bpftest.Ping(source.Addr(), known, 8), ping)
	g.wantFlow("of the node itself", g.EgressLocal, connect(bpftest.TCP, to4), flowOf(bpftest.TCP, four, to4, isDenied|local))

	anything := component(bpf.DatapathComponentCOMPONENT_ANY, 0)
	g.rules(anything, every(7, deny), every(9, audit|deny))
	want := flowOf(bpftest.TCP, four, to4, isDenied|byRule|auditRule)
	want.Enforced, want.Audited = 7, 9
	g.wantFlow("a rule", g.EgressForwarded, connect(bpftest.TCP, to4), want)
	g.workload(bpf.DatapathWorkloadKey{Source: workloadClass}, enforced|auditing)
	want.Flags |= isAudited
	g.wantFlow("both would", g.EgressForwarded, connect(bpftest.TCP, to4), want)
	g.workload(bpf.DatapathWorkloadKey{Source: workloadClass}, auditing)
	want.Flags &^= isDenied
	g.wantFlow("audit alone", g.EgressForwarded, connect(bpftest.TCP, to4), want)
	g.rules(anything, every(7, 0), every(9, audit))
	g.Run(g.EgressForwarded, connect(bpftest.TCP, to4))
	if flows := g.Flows(); len(flows) != 0 {
		t.Errorf("allowed: got %v, want no event", flows)
	}
}

// Fields of what cannot be judged by the rules are what was read, or zero.
func TestFlowEventsOfWhatIsNotJudged(t *testing.T) {
	const isDenied = bpf.DatapathFlowFlagFLOW_DENIED
	g := newGate(t, enforced)
	g.Put(g.RuleSets, uint32(0), uint64(0xfeed))
	unread := bpf.DatapathFlowEvent{
		Type: bpf.DatapathEventTypeEVENT_FLOW, Flags: isDenied, RuleSet: 0xfeed, Ifindex: 1,
		Reason: bpf.DatapathFlowReasonFLOW_UNREADABLE,
	}
	cut := unread
	cut.Protocol = bpftest.TCP
	cut.Source, cut.Destination = bpftest.Addr(source.Addr()), bpftest.Addr(known)
	short := bpftest.IP(source.Addr(), known, bpftest.TCP, []byte{1, 2, 3})
	g.wantFlow("no ports", g.EgressForwarded, short, cut)
	g.workload(bpf.DatapathWorkloadKey{Source: workloadClass}, auditing)
	cut.Flags = bpf.DatapathFlowFlagFLOW_AUDITED
	g.wantFlow("no ports, audited", g.EgressForwarded, short, cut)

	g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES | bpf.DatapathGenerationFlagGENERATION_INTERFACES)
	strange := flowOf(bpftest.TCP, "10.1.0.7:40000", "192.0.2.1:443", isDenied)
	strange.Reason, strange.Enforced, strange.Audited = bpf.DatapathFlowReasonFLOW_UNKNOWN_INTERFACE, 0, 0
	g.wantFlow("unknown interface", g.EgressForwarded, connect(bpftest.TCP, "192.0.2.1:443"), strange)
}

// A CPU tells no more than its share, and counts the others.
func TestFlowEventsAreLimited(t *testing.T) {
	onOneCPU(t)
	g := newGate(t, enforced)
	const interval = 200 * time.Millisecond
	g.Put(g.FlowLimits, uint32(0), bpf.DatapathFlowLimit{IntervalNs: uint64(interval), BurstNs: uint64(10 * interval)})
	const packets = 1000
	began := bpftest.Now(t)
	for range packets {
		g.Run(g.EgressForwarded, connect(bpftest.TCP, "192.0.2.1:443"))
	}
	took := bpftest.Now(t) - began
	counted := g.Counted()
	if got := counted[told] + counted[suppressed] + counted[lost]; got != packets || counted[denied] != packets {
		t.Errorf("%d told, suppressed or lost, %d denied, want %d of both", got, counted[denied], packets)
	}
	if most := 11 + uint64(took/interval); counted[told] < 10 || counted[told] > most {
		t.Errorf("told %d within %v, want 10 to %d", counted[told], took, most)
	}
	if flows := g.Flows(); uint64(len(flows)) != counted[told] {
		t.Errorf("%d events, %d counted as told", len(flows), counted[told])
	}
	g.Put(g.FlowClocks, uint32(0), make([]uint64, ebpf.MustPossibleCPU())) // as after a quiet time
	g.want("after a quiet time", connect(bpftest.TCP, "192.0.2.1:443"), denied)
	if len(g.Flows()) != 1 {
		t.Error("no event after a quiet time")
	}
}

// Half of the ring buffer is the answers': denied connections, however many, take none of it.
func TestFlowEventsLeaveRoomForAnswers(t *testing.T) {
	small := func(spec *ebpf.CollectionSpec) {
		spec.Maps[bpf.DatapathMapEvents].MaxEntries = uint32(os.Getpagesize())
	}
	g := &gate{Datapath: bpftest.Load(t, 1024, small), t: t}
	g.flags(bpf.DatapathGenerationFlagGENERATION_ENFORCES)
	g.workload(bpf.DatapathWorkloadKey{Origin: bpf.DatapathOriginORIGIN_LOCAL}, enforced)
	e := &exchange{Datapath: g.Datapath, t: t, client: source, resolver: source}
	e.trust(e.resolver)
	e.Pattern(0, "example.com", 0, belowSet)
	const packets = 1000
	for range packets {
		g.Run(g.EgressLocal, connect(bpftest.TCP, "192.0.2.1:443"))
	}
	counted := g.Counted()
	if counted[told] < 10 || counted[lost] != packets-counted[told] || counted[suppressed] != 0 {
		t.Errorf("told %d, lost %d, suppressed %d of %d", counted[told], counted[lost], counted[suppressed], packets)
	}
	for _, name := range []string{"a.example.com", "b.example.com", "c.example.com"} {
		if counted := e.resolve(name, name+". 60 IN A 192.0.2.1"); counted[bpf.DatapathCounterCOUNTER_EVENT_LOST] != 0 {
			t.Errorf("%s: the answer's event was lost", name)
		}
	}
	answers, flows := g.ReadEvents()
	if len(answers) != 3 || uint64(len(flows)) != counted[told] {
		t.Errorf("%d answers and %d flow events, want 3 and %d", len(answers), len(flows), counted[told])
	}
}

// onOneCPU keeps the test on the CPU on which it runs: shares are each CPU's own.
func onOneCPU(t *testing.T) {
	t.Helper()
	var before, one unix.CPUSet
	runtime.LockOSThread()
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	for cpu := range ebpf.MustPossibleCPU() {
		if before.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.SchedSetaffinity(0, &before); err == nil {
			runtime.UnlockOSThread()
		}
	})
}
