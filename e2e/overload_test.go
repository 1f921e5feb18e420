package e2e_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// What floods consist of.
const (
	floodNames     = 6000 // distinct names
	floodAddresses = 1200 // of one answer: more than are learned
	floodRules     = 100  // each with a name of its own, on one address: more than an address has places for
	floodDatagrams = 20_000
	grownMost      = 48 << 20 // bytes that agent or server may have more at the end than at the beginning
)

// floodAnswers is what the resolver of floods says: many addresses, one address of many names, one of its own for
// each numbered name, others at each turn, and nothing to names that say so.
func floodAnswers() func(name string) []netip.Addr {
	var turn atomic.Int32
	return func(name string) []netip.Addr { return floodAnswer(name, &turn) }
}

func floodAnswer(name string, turn *atomic.Int32) []netip.Addr {
	label, _, _ := strings.Cut(name, ".")
	switch {
	case label == "silent":
		return nil
	case strings.HasPrefix(label, "many"):
		return numberedFrom(1<<15, floodAddresses)
	case strings.HasPrefix(label, "turn"):
		return numberedFrom(1<<15+1<<12+int(turn.Add(1))*400, 400)
	case strings.HasPrefix(label, "shared"):
		return []netip.Addr{numbered(1<<15 + 1<<14)}
	}
	i, _ := strconv.Atoi(strings.TrimPrefix(label, "n"))
	return []netip.Addr{numbered(i)}
}

func numbered(i int) netip.Addr { return netip.AddrFrom4([4]byte{198, 19, byte(i >> 8), byte(i)}) }

func numberedFrom(first, count int) (addresses []netip.Addr) {
	for i := range count {
		addresses = append(addresses, numbered(first+i))
	}
	return addresses
}

func floodName(prefix string, i int) string { return fmt.Sprintf("%s%d.scripted.example", prefix, i) }

func namesOf(prefix string, from, to int) (names []string) {
	for i := from; i < to; i++ {
		names = append(names, floodName(prefix, i))
	}
	return names
}

// overloaded is a fleet with little room, under floods and, all the while, a light load of what is allowed and what
// is denied.
type overloaded struct {
	*fleet
	load *load
}

// flood is more of something than there is room for, and what is counted of it then.
type flood struct {
	fact   string
	pour   func(t *testing.T, o *overloaded)
	losses []string
}

var floods = []flood{
	{"questions that nobody answers", func(_ *testing.T, o *overloaded) {
		o.must(o.Node.FloodQuestions(scripted, "silent.scripted.example", 5000))
	}, []string{"dns_queries_evicted"}},
	{"answers of more than 1,000 addresses", func(t *testing.T, o *overloaded) {
		o.ask(t, namesOf("many", 0, 5))
	}, []string{"addresses_over_limit"}},
	{"others at each answer", func(t *testing.T, o *overloaded) {
		for range 4 {
			o.ask(t, namesOf("turn", 0, 1))
		}
	}, []string{"addresses_evicted"}},
	{"distinct names, while the server is stuck and then slow", func(t *testing.T, o *overloaded) {
		o.must(o.server.Freeze())
		o.ask(t, namesOf("n", 0, floodNames/2))
		stop, stopped := make(chan struct{}), make(chan struct{})
		go o.slow(stop, stopped)
		o.ask(t, namesOf("n", floodNames/2, floodNames))
		close(stop)
		<-stopped
		o.awaitMapping(floodName("n", floodNames-1))
	}, []string{"mappings_evicted", "observations_evicted"}},
	{"names of as many rules on one address", func(t *testing.T, o *overloaded) {
		o.ask(t, namesOf("shared", 0, floodRules))
	}, []string{"mapping_slots_evicted"}},
	{"connections that are denied", func(_ *testing.T, o *overloaded) {
		o.must(o.Client.Flood(netip.AddrPortFrom(lab.ServicesV4.Addr().Next(), 9), floodDatagrams))
	}, []string{"flow_events_suppressed"}},
	{"all of it while the agent reads nothing", func(t *testing.T, o *overloaded) {
		o.must(o.agent.Freeze())
		defer o.agent.Thaw()              //nolint:errcheck // its counters show whether it runs
		o.ask(t, namesOf("many", 5, 605)) // 20 kB are told of each
		o.must(o.Client.Flood(netip.AddrPortFrom(lab.ServicesV4.Addr().Next(), 9), floodDatagrams))
		o.expectPolicies(t)
	}, []string{"events_lost", "flow_events_lost"}},
}

// ask asks in the name of the node itself, whose questions are those that give way.
func (o *overloaded) ask(t *testing.T, names []string) {
	t.Helper()
	errs, err := o.Node.AskInTurn(scripted, names...)
	o.must(err)
	if failed := slices.IndexFunc(errs, func(err error) bool { return err != nil }); failed >= 0 {
		t.Fatalf("resolve %s: %v", names[failed], errs[failed])
	}
}

// slow lets the server run for a moment now and then.
func (o *overloaded) slow(stop <-chan struct{}, stopped chan<- struct{}) {
	defer close(stopped)
	turn := time.NewTicker(5 * time.Millisecond)
	defer turn.Stop()
	for i := 0; ; i++ {
		select {
		case <-stop:
			_ = o.server.Thaw()
			return
		case <-turn.C:
		}
		if i%5 == 0 {
			_ = o.server.Thaw()
		} else {
			_ = o.server.Freeze()
		}
	}
}

// TestOverload: in each flood, and after it, what policy allows works and what it denies does not pass; the memory of
// agent and server is bounded; and what is lost is counted by its reason, alike on the socket, in the metrics and at
// the server.
func TestOverload(t *testing.T) {
	f := newFleet(t, "--trusted-resolver", scripted.String(), "--max-queries", "256", "--max-mappings", "3072")
	f.must(f.StartAnswering(t.Context(), scripted, floodAnswers()))
	policy := clientPolicy("*.fresh.example", "api.example")
	policy.Workloads = append(policy.Workloads, &namewardv1.Workload{Host: true})
	for _, name := range namesOf("shared", 0, floodRules) {
		policy.Rules = append(policy.Rules, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Domains: []string{name}, Ports: policy.Rules[0].Ports})
	}
	policy.Rules = append(policy.Rules, &namewardv1.Rule{Action: namewardv1.Rule_ALLOW, Domains: []string{"*.scripted.example"}, Ports: policy.Rules[0].Ports})
	f.put(policy)
	o := &overloaded{fleet: f, load: f.startLoad(t, func(_ netip.Addr, i int) string { return lab.FreshName(i) }, 50, 1)}
	o.load.pass(f, 10)
	memory := o.memory()
	for _, flood := range floods {
		t.Run(flood.fact, func(t *testing.T) {
			before := f.counters(func(map[string]uint64) bool { return true })
			flood.pour(t, o)
			f.counters(func(c map[string]uint64) bool {
				return !slices.ContainsFunc(flood.losses, func(loss string) bool { return c[loss] <= before[loss] })
			})
			f.expectPolicies(t)
			o.load.pass(f, 10)
		})
	}
	o.load.stop()
	o.load.report(t)
	for program, now := range o.memory() {
		grown := (now - memory[program]) >> 20
		t.Logf("%s: %d MiB, %d MiB at the beginning", program, now>>20, memory[program]>>20)
		if grown > grownMost>>20 {
			t.Errorf("%s grew by %d MiB", program, grown)
		}
	}
	o.expectAlike(t)
}

func (o *overloaded) memory() map[string]int {
	agent, err := o.agent.Memory()
	o.must(err)
	server, err := o.server.Memory()
	o.must(err)
	return map[string]int{"agent": agent, "server": server}
}

// expectAlike holds that all that is counted, losses and what is no loss, is the same in all three places, once nothing
// is counted any more.
func (o *overloaded) expectAlike(t *testing.T) {
	t.Helper()
	var differences string
	if err := lab.Await(t.Context(), func() error {
		upstream := o.nodeUpstream(t).GetStatus().GetCounters()
		local := o.counters(func(map[string]uint64) bool { return true })
		differences = cmp.Diff(local, upstream)
		if metrics := o.agentMetrics(t, slices.Collect(maps.Keys(local))); differences == "" {
			differences = cmp.Diff(local, metrics)
		}
		if differences != "" {
			return fmt.Errorf("counters differ: %s", differences)
		}
		return nil
	}, nil); err != nil {
		t.Error(err)
	}
	for _, flood := range floods {
		for _, loss := range flood.losses {
			t.Logf("%s: %d", loss, o.nodeUpstream(t).GetStatus().GetCounters()[loss])
		}
	}
}

// agentMetrics returns what the metrics say of counters.
func (f *fleet) agentMetrics(t *testing.T, names []string) map[string]uint64 {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (net.Conn, error) {
		return f.Node.Dial(network, address, time.Second)
	}}}
	response, err := client.Get("http://127.0.0.1:7481/metrics")
	f.must(err)
	defer response.Body.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(response.Body)
	f.must(err)
	shown := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		metric, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		shown[metric], _ = strconv.ParseFloat(value, 64)
	}
	found := map[string]uint64{}
	for _, name := range names {
		if value, there := shown[metricOf(name)]; there {
			found[name] = uint64(value)
		}
	}
	return found
}

// metricOf is the metric of a counter.
func metricOf(counter string) string {
	for _, family := range []struct{ prefix, label string }{{"dns_responses", "result"}, {"verdicts", "verdict"}, {"flow_events", "result"}} {
		if value, of := strings.CutPrefix(counter, family.prefix+"_"); of {
			return fmt.Sprintf("nameward_agent_%s_total{%s=%q}", family.prefix, family.label, value)
		}
	}
	return "nameward_agent_" + counter + "_total"
}
