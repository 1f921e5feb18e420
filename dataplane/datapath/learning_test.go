package datapath

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/observe"
)

// The programs find each name where this package put it: both hash alike, at every length of label and
// name.
func TestProgramsFindNamesOfAllLengths(t *testing.T) {
	f := newFixture(t)
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same names in each run
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789-_"
	var names []string
	for i := range 300 {
		length := 1 + i*248/300
		name := make([]byte, length)
		for j, label := 0, 0; j < length; j++ {
			label++
			if j > 0 && j < length-1 && name[j-1] != '.' && (label > 63 || random.IntN(12) == 0) {
				name[j], label = '.', 0
				continue
			}
			name[j] = letters[random.IntN(len(letters))]
		}
		names = append(names, string(name)+fmt.Sprintf(".n%d", i))
	}
	f.apply(t, hostRules(t, allow(names...)))
	for i, name := range names {
		f.resolve(t, strings.ToUpper(name), 60, fmt.Sprintf("%s. IN A 198.18.%d.%d", name, i>>8, i&255))
		if !f.opens(t, fmt.Sprintf("198.18.%d.%d:443", i>>8, i&255)) {
			t.Errorf("%s (%d bytes) is not found", name, len(name))
		}
	}
}

// An answer that a program learned without knowing of the generation that was put in force meanwhile.
func TestAnswerOfTheOldGenerationIsMadeGood(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("www.example.com")))
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	a := testAnswer(t, clock)
	a.generations = 1 << (1 - f.active)
	if err := f.locked(func() error { return f.take([]learned{a}, clock) }); err != nil {
		t.Fatal(err)
	}
	for destination, want := range map[string]bool{"192.0.2.1:443": true, "192.0.2.2:443": true, "192.0.2.3:443": false} {
		if got := f.opens(t, destination); got != want {
			t.Errorf("%s: open %v, want %v", destination, got, want)
		}
	}
}

func TestProlongedWithoutAnEvent(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("a.example.com")))
	for range 2 {
		f.resolve(t, "www.example.com", 3600, "www.example.com. IN A 198.51.100.1")
		if err := f.locked(f.drain); err != nil {
			t.Fatal(err)
		}
	}
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	live := f.table.Live(clock.now, nil)
	if len(live) != 1 {
		t.Fatalf("got %v, want one mapping", live)
	}
	before := clock.toTicks(live[0].ExpiresAt)
	question := f.names.key.QuestionHash(f.names.key.SuffixHashes(live[0].Domain.Wire())[0], uint64(observe.QuestionFor(live[0].Address)))
	which := bpf.AnswerBucket(question, f.kernel.Answers.MaxEntries())
	var bucket bpf.DatapathAnswerBucket
	if err := f.kernel.Answers.Lookup(which, &bucket); err != nil {
		t.Fatal(err)
	}
	expires, found := bucket.AnswerTo(question)
	if !found || expires < before {
		t.Errorf("the kernel's expiry %d is before the table's %d", expires, before)
	}
	const later = 1 << 20
	for i := range bucket.Slots {
		bucket.Slots[i].Times += later << bpf.DatapathAnswerLimitANSWER_UNTOLD_BITS
	}
	if err := f.kernel.Answers.Put(which, &bucket); err != nil {
		t.Fatal(err)
	}
	f.prolong(clock, clock.now.Add(24*time.Hour))
	live = f.table.Live(clock.now, nil)
	if got := clock.toTicks(live[0].ExpiresAt); got != expires+later {
		t.Errorf("prolonged to %d, want %d", got, expires+later)
	}
}

func TestExpiredMappingsAreCollected(t *testing.T) {
	f := newFixture(t)
	f.apply(t, hostRules(t, allow("*.example.com")))
	f.resolve(t, "a.example.com", 60, "a.example.com. IN A 198.51.100.1")
	f.resolve(t, "b.example.com", 3600, "b.example.com. IN A 198.51.100.2")
	if err := f.locked(f.drain); err != nil {
		t.Fatal(err)
	}
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	later := clock
	later.now, later.boot = clock.now.Add(10*time.Minute), clock.boot+uint64(10*time.Minute)
	if tight, err := f.collect(later); err != nil || tight {
		t.Fatalf("collect: tight %v, %v", tight, err)
	}
	if got := f.pages(t); got != 1 {
		t.Errorf("entries left: got %d, want 1", got)
	}
	if mappings, _, err := f.journal.mappings(later); err != nil || len(mappings) != 2 {
		t.Errorf("journal: got %v, %v, want both: connections outlive mappings", mappings, err)
	}
	counters, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if counters["mappings_evicted"] != 0 {
		t.Errorf("collected counts as evicted: got %d", counters["mappings_evicted"])
	}
}

func TestEvictionsAreCounted(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxMappings = 256 })
	f.apply(t, hostRules(t, allow("*.example.com")))
	for i := range 2000 {
		f.resolve(t, fmt.Sprintf("n%d.example.com", i), 3600, fmt.Sprintf("n%d.example.com. IN A 198.18.%d.%d", i, i>>8, i&255))
	}
	clock, err := readClock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.collect(clock); err != nil {
		t.Fatal(err)
	}
	held := f.pages(t)
	if got, want := f.counter(t, "mappings_evicted"), 2000-held; got != want || held < 256 {
		t.Errorf("evicted %d, want %d; %d left", got, want, held)
	}
	// What is dropped while no agent runs is counted when one does.
	for i := range 500 {
		f.resolve(t, fmt.Sprintf("m%d.example.com", i), 3600, fmt.Sprintf("m%d.example.com. IN A 198.19.%d.%d", i, i>>8, i&255))
	}
	f.restart(t)
	if got, want := f.counter(t, "mappings_evicted"), 2500-f.pages(t); got != want {
		t.Errorf("after a restart: evicted %d, want %d", got, want)
	}
}

// pages is how many entries mappings have.
func (f *fixture) pages(t *testing.T) uint64 {
	t.Helper()
	found, err := f.takeStock(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return found.held
}

func (f *fixture) counter(t *testing.T, name string) uint64 {
	t.Helper()
	counters, err := f.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return counters[name]
}

// A link that nobody classed yet may open nothing while policies select by interface.
func TestInterfaces(t *testing.T) {
	f := newFixture(t)
	// The namespace goes with the thread, which goes with the test, since it is never unlocked.
	runtime.LockOSThread()
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close() //nolint:errcheck // ends with the test
	one := addLink(t, "nwa0")
	other := addLink(t, "nwb0")
	f.apply(t, policies(t, `{"name": "policies/if", "mode": "ENFORCE", "established": "CUT", "workloads": [{"interface": "nwa+"}],
		"rules": [{"action": "ALLOW", "cidrs": ["198.51.100.1"]}]}`))
	late := addLink(t, "nwa1")
	check := func(link uint32, destination string, want bool) {
		t.Helper()
		packet := bpftest.Connection(bpftest.TCP, testOrigin, netip.MustParseAddrPort(destination))
		verdict, err := f.kernel.programs[bpf.DatapathProgEgressForwarded].Run(&ebpf.RunOptions{
			Data: packet, Repeat: 1, Context: socketBuffer{Ifindex: link},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := verdict == 0; got != want {
			t.Errorf("from interface %d to %s: open %v, want %v", link, destination, got, want)
		}
	}
	check(one, "198.51.100.1:443", true)
	check(one, "198.51.100.2:443", false)
	check(other, "198.51.100.2:443", true)
	check(late, "198.51.100.1:443", false)
	link, err := netlink.LinkByIndex(int(late))
	if err != nil {
		t.Fatal(err)
	}
	update := netlink.LinkUpdate{Link: link}
	update.Index = int32(late)
	if err := f.locked(func() error { return f.followLink(update) }); err != nil {
		t.Fatal(err)
	}
	check(late, "198.51.100.1:443", true)
	check(late, "198.51.100.2:443", false)
}

// socketBuffer is struct __sk_buff of linux/bpf.h, as far as its order matters here.
type socketBuffer struct {
	_       [10]uint32
	Ifindex uint32
	_       [37]uint32
}

func addLink(t *testing.T, name string) uint32 {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "peer-" + name}); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(link.Attrs().Index)
}
