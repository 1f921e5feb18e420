package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netns"
	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/lower"
)

var (
	testServer = netip.MustParseAddrPort("192.0.2.99:7443")
	testLinks  = []string{"eth0", "eth1", "eth12", "veth7"}
)

// A world is what connections of one case come from and lead to: addresses that nothing was learned of
// before, and who may open them.
type world struct {
	sources      []netip.Addr
	destinations []netip.Addr
	names        map[netip.Addr][]domain.Name // live, of the destinations
	links        map[string]uint32
}

// TestDifferentialVerdicts compares verdicts of the programs, on the maps that the agent fills, with
// Explain, and refused questions with Refuses, on random rule sets, mappings and packets. More of them run
// with `make differential`.
func TestDifferentialVerdicts(t *testing.T) {
	bpftest.RequirePrivileged(t)
	runtime.LockOSThread() // never unlocked: the namespace ends with the thread
	namespace, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer namespace.Close() //nolint:errcheck // ends with the test
	links := map[string]uint32{"lo": 1}
	for _, name := range testLinks {
		links[name] = addLink(t, name)
	}
	var f *fixture
	next, packets, denied := uint32(0), 0, 0
	inCells, inTrie := 0, 0
	rapid.Check(t, func(r *rapid.T) {
		w := &world{links: links, names: map[netip.Addr][]domain.Name{}}
		if next%fixtureCases == 0 {
			f = renewFixture(t, f)
		}
		w.draw(r, &next)
		rules := w.drawRules(r)
		late := rapid.SampledFrom(w.destinations).Draw(r, "late")
		for _, destination := range w.destinations {
			if destination != late {
				f.learnNames(t, r, w, destination)
			}
		}
		switch err := f.Apply(t.Context(), rules); {
		case errors.Is(err, enforce.ErrFull):
			return // as it should be refused; the next may have fewer rules
		case err != nil:
			t.Fatalf("apply: %v", err)
		}
		switch held := f.held[f.active]; {
		case len(held.sources) > 0:
			inTrie++
		case len(held.hosts) > 0:
			inCells++
		}
		f.learnNames(t, r, w, late)
		for range 60 {
			p := w.drawPacket(r)
			packets++
			if f.compareVerdict(t, r, rules, p) {
				denied++
			}
		}
		for range 20 {
			f.compareRefusal(r, rules, w)
		}
	})
	t.Logf("%d packets, of which %d were denied; sources %d times in cells alone and %d times in the trie too", packets, denied, inCells, inTrie)
	if denied == 0 || denied == packets {
		t.Errorf("%d of %d packets were denied", denied, packets)
	}
	if inCells == 0 || inTrie == 0 {
		t.Error("sources were always laid out in one way")
	}
}

// fixtureCases share a datapath. All addresses that were learned get the match sets of all rule sets that
// come while they live: after too many, the first would have to give way.
const fixtureCases = 200

func renewFixture(t *testing.T, old *fixture) *fixture {
	t.Helper()
	if old != nil {
		if err := old.Close(); err != nil {
			t.Fatal(err)
		}
	}
	f := newFixture(t, func(cfg *Config) { cfg.MaxMappings = 1 << 16 })
	if err := f.SetEndpoints([]netip.AddrPort{testResolver}, []netip.AddrPort{testServer}); err != nil {
		t.Fatal(err)
	}
	return f
}

// draw makes addresses that differ from those of all cases before.
func (w *world) draw(r *rapid.T, next *uint32) {
	*next++
	n := *next
	for i := range byte(3) {
		w.sources = append(w.sources, netip.AddrFrom4([4]byte{10, byte(n), i, 7}))
		w.destinations = append(w.destinations, netip.AddrFrom4([4]byte{byte(20 + n>>16), byte(n >> 8), byte(n), 1 + i}))
		six := [16]byte{0xfd, 0, byte(n), i, 15: 7}
		w.sources = append(w.sources, netip.AddrFrom16(six))
		six = [16]byte{0x20, 1, 0xd, 0xb8, byte(n >> 16), byte(n >> 8), byte(n), 0, 15: 1 + i}
		w.destinations = append(w.destinations, netip.AddrFrom16(six))
	}
	for _, destination := range w.destinations {
		for range rapid.IntRange(0, 3).Draw(r, "names") {
			name, err := domain.FromWire(drawWire(r))
			if err != nil {
				r.Fatal(err)
			}
			if !slices.Contains(w.names[destination], name) {
				w.names[destination] = append(w.names[destination], name)
			}
		}
	}
}

// learnNames has the resolver tell of an address by all of its names, as a chain or one by one. Names that
// the rules do not let be asked are none of its names.
func (f *fixture) learnNames(t testing.TB, r *rapid.T, w *world, address netip.Addr) {
	t.Helper()
	names := w.names[address]
	w.names[address] = nil
	if len(names) > 1 && rapid.Bool().Draw(r, "chain") {
		if f.learnChain(t, names, address) {
			w.names[address] = names
		}
		return
	}
	for _, name := range names {
		if f.learnChain(t, []domain.Name{name}, address) {
			w.names[address] = append(w.names[address], name)
		}
	}
}

// learnChain has the resolver answer a question for the first name with aliases and an address of the last,
// unless the question is refused.
func (f *fixture) learnChain(t testing.TB, names []domain.Name, address netip.Addr) bool {
	t.Helper()
	f.id++
	kind := map[bool]byte{true: 1, false: 28}[address.Is4()]
	header := []byte{byte(f.id >> 8), byte(f.id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	question := slices.Concat(header, names[0].Wire(), []byte{0, kind, 0, 1})
	if f.run(t, bpf.DatapathProgDnsQueryForwarded, bpftest.Datagram(testClient, testResolver, question)) != 0 {
		return false
	}
	message := slices.Clone(question)
	message[2], message[7] = 0x80, byte(len(names))
	record := func(owner domain.Name, kind byte, data []byte) {
		message = slices.Concat(message, owner.Wire(), []byte{0, kind, 0, 1, 0, 0, 1, 0, 0, byte(len(data))}, data)
	}
	for i, target := range names[1:] {
		record(names[i], 5, target.Wire())
	}
	record(names[len(names)-1], kind, address.AsSlice())
	f.run(t, bpf.DatapathProgDnsResponse, bpftest.Datagram(testResolver, testClient, message))
	return true
}

func (w *world) drawRules(r *rapid.T) *ruleset.RuleSet {
	rules := ruleset.New(nil)
	sets := []string{"domainSets/a", "domainSets/b"}
	for _, name := range sets {
		rules.DomainSets = append(rules.DomainSets, ruleset.NewDomainSet(name, drawPatterns(r, 0, 5)))
	}
	for i := range rapid.IntRange(0, 4).Draw(r, "policies") {
		policy := ruleset.Policy{
			Name: fmt.Sprintf("policies/%d", i),
			Mode: rapid.SampledFrom([]ruleset.Mode{ruleset.Enforce, ruleset.Enforce, ruleset.Audit}).Draw(r, "mode"),
		}
		for range rapid.IntRange(1, 3).Draw(r, "workloads") {
			policy.Workloads = append(policy.Workloads, w.drawWorkload(r))
		}
		for range rapid.IntRange(0, 4).Draw(r, "rules") {
			policy.Rules = append(policy.Rules, w.drawRule(r, sets))
		}
		rules.Policies = append(rules.Policies, policy)
	}
	return rules
}

func (w *world) drawWorkload(r *rapid.T) ruleset.Workload {
	interfaces := []string{"+", "eth+", "eth0", "eth1", "e+", "veth7", "lo"}
	switch rapid.IntRange(0, 7).Draw(r, "workload") {
	case 0, 1:
		return ruleset.Workload{Host: true}
	case 2, 3:
		return ruleset.Workload{CIDRs: drawPrefixes(r, w.sources, 1)}
	case 4:
		return ruleset.Workload{Interface: rapid.SampledFrom(interfaces).Draw(r, "interface")}
	case 5:
		return ruleset.Workload{CIDRs: drawPrefixes(r, w.sources, 1), Interface: rapid.SampledFrom(interfaces).Draw(r, "interface")}
	case 6: // one around the other
		return ruleset.Workload{CIDRs: drawNested(r, rapid.SampledFrom(w.sources).Draw(r, "nested"))}
	default: // of thousands
		return ruleset.Workload{CIDRs: thousands(w.sources[0], rapid.IntRange(0, 2000).Draw(r, "thousands"))}
	}
}

// thousands gives many prefixes around an address, in some of which it is.
func thousands(address netip.Addr, count int) []netip.Prefix {
	prefixes := []netip.Prefix{netip.PrefixFrom(address, 32)}
	bytes := address.As4()
	for i := range count {
		bytes[2], bytes[3] = byte(i>>8), byte(i)
		prefixes = append(prefixes, netip.PrefixFrom(netip.AddrFrom4(bytes), 32-i%4).Masked())
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return slices.Compact(prefixes)
}

// drawPrefixes draws prefixes of any length in which one of the addresses is.
func drawPrefixes(r *rapid.T, addresses []netip.Addr, least int) []netip.Prefix {
	var prefixes []netip.Prefix
	for range rapid.IntRange(least, 3).Draw(r, "prefixes") {
		address := rapid.SampledFrom(addresses).Draw(r, "address")
		prefix, err := address.Prefix(rapid.IntRange(0, address.BitLen()).Draw(r, "bits"))
		if err != nil {
			r.Fatal(err)
		}
		prefixes = append(prefixes, prefix)
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return slices.Compact(prefixes)
}

// drawNested draws prefixes of one address, of as many lengths as the programs look for in hosts, or more.
func drawNested(r *rapid.T, address netip.Addr) (prefixes []netip.Prefix) {
	for _, bits := range rapid.SliceOfNDistinct(rapid.IntRange(0, address.BitLen()), 1, 10, rapid.ID).Draw(r, "lengths") {
		prefixes = append(prefixes, netip.PrefixFrom(address, bits).Masked())
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return prefixes
}

func drawPatterns(r *rapid.T, least, most int) []domain.Pattern {
	var patterns []domain.Pattern
	for range rapid.IntRange(least, most).Draw(r, "patterns") {
		pattern, err := domain.ParsePattern(drawPattern(r))
		if err != nil {
			r.Fatal(err)
		}
		patterns = append(patterns, pattern)
	}
	slices.SortFunc(patterns, func(a, b domain.Pattern) int { return compareText(a.String(), b.String()) })
	return slices.Compact(patterns)
}

func compareText(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (w *world) drawRule(r *rapid.T, sets []string) ruleset.Rule {
	rule := ruleset.Rule{
		Action:         rapid.SampledFrom([]ruleset.Action{ruleset.Allow, ruleset.Allow, ruleset.Deny}).Draw(r, "action"),
		RefusesQueries: rapid.IntRange(0, 3).Draw(r, "refuses") == 0,
	}
	switch rapid.IntRange(0, 6).Draw(r, "destination") {
	case 0:
	case 1, 2:
		rule.Domains = drawPatterns(r, 1, 4)
	case 3:
		rule.DomainSets = slices.Sorted(slices.Values(rapid.SliceOfNDistinct(rapid.SampledFrom(sets), 1, 2, rapid.ID).Draw(r, "sets")))
	case 4:
		rule.CIDRs = drawPrefixes(r, w.destinations, 1)
	case 5:
		rule.CIDRs = thousands(w.destinations[0], rapid.IntRange(0, 1500).Draw(r, "thousands"))
	default:
		rule.Domains, rule.CIDRs = drawPatterns(r, 0, 2), drawPrefixes(r, w.destinations, 0)
	}
	for range rapid.IntRange(0, 2).Draw(r, "ports") {
		rule.Ports = append(rule.Ports, drawPorts(r))
	}
	if rapid.IntRange(0, 5).Draw(r, "many ports") == 0 { // more than one page of a verdict
		for _, port := range testPorts {
			for _, protocol := range []ruleset.Protocol{ruleset.SCTP, ruleset.UDP, ruleset.TCP} {
				rule.Ports = append(rule.Ports, ruleset.Ports{Protocol: protocol, First: port, Last: port})
			}
		}
	}
	return rule
}

var testPorts = []uint16{0, 1, 22, 53, 67, 80, 443, 444, 547, 7443, 8080, 65534, 65535}

func drawPorts(r *rapid.T) ruleset.Ports {
	protocols := []ruleset.Protocol{ruleset.TCP, ruleset.UDP, ruleset.SCTP, ruleset.ICMP}
	p := ruleset.Ports{Protocol: rapid.SampledFrom(protocols).Draw(r, "protocol"), Last: 65535}
	if p.Protocol.HasPorts() && rapid.Bool().Draw(r, "range") {
		one, other := rapid.SampledFrom(testPorts).Draw(r, "port"), rapid.SampledFrom(testPorts).Draw(r, "port")
		p.First, p.Last = min(one, other), max(one, other)
	}
	return p
}

// A judgedPacket is a packet and all that the rules are asked about it.
type judgedPacket struct {
	ruleset.Connection
	link       uint32
	bytes      []byte
	unreadable bool // its headers: denied wherever a policy in mode ENFORCE selects it
	always     bool // allowed, whatever the policies say
}

func (w *world) drawPacket(r *rapid.T) judgedPacket {
	var p judgedPacket
	p.Local = rapid.IntRange(0, 2).Draw(r, "local") == 0
	p.Destination = rapid.SampledFrom(w.destinations).Draw(r, "destination")
	p.Names = w.names[p.Destination]
	p.Source = drawNear(r, rapid.SampledFrom(w.sourcesLike(p.Destination)).Draw(r, "source"))
	p.Interface = rapid.SampledFrom(append(testLinks, "lo")).Draw(r, "link")
	p.link = w.links[p.Interface]
	if p.Local {
		p.link = 0
	}
	protocol := rapid.SampledFrom([]uint8{bpftest.TCP, bpftest.TCP, bpftest.TCP, bpftest.UDP, bpftest.UDP, bpftest.SCTP, bpftest.ICMP, bpftest.ICMPv6, 47, 50, 59, 255}).Draw(r, "protocol")
	from := rapid.SampledFrom([]uint16{40000, 68, 546, 0}).Draw(r, "from")
	p.Port = rapid.SampledFrom(testPorts).Draw(r, "port")
	if rapid.IntRange(0, 19).Draw(r, "endpoint") == 0 && p.Destination.Is4() {
		endpoint := rapid.SampledFrom([]netip.AddrPort{testResolver, testServer}).Draw(r, "to")
		p.Destination, p.Names, p.Port = endpoint.Addr(), nil, endpoint.Port()
	}
	if rapid.IntRange(0, 9).Draw(r, "on link") == 0 {
		p.Destination, p.Names = rapid.SampledFrom(onLink(p.Source)).Draw(r, "to link"), nil
	}
	transport := bpftest.Ports(from, p.Port)
	switch protocol {
	case bpftest.ICMP, bpftest.ICMPv6:
		transport[0] = rapid.SampledFrom([]byte{0, 3, 8, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 143, 255}).Draw(r, "type")
		p.Protocol, p.Port = ruleset.ICMP, 0
	case bpftest.UDP:
		transport = bpftest.UDPHeader(from, p.Port, nil)
		fallthrough
	case bpftest.TCP, bpftest.SCTP:
		p.Protocol = ruleset.Protocol(protocol)
	default:
		p.Protocol, p.Port = ruleset.Protocol(protocol), 0
	}
	p.always = alwaysAllowed(p.Connection, protocol, from, transport[0])
	p.build(r, protocol, transport)
	return p
}

// drawNear draws an address, or one that differs from it in a bit.
func drawNear(r *rapid.T, address netip.Addr) netip.Addr {
	bytes := address.AsSlice()
	if bit := rapid.IntRange(-address.BitLen(), address.BitLen()-1).Draw(r, "differs"); bit >= 0 {
		bytes[bit/8] ^= 0x80 >> (bit % 8)
	}
	near, _ := netip.AddrFromSlice(bytes)
	return near
}

// sourcesLike gives the sources of a destination's family.
func (w *world) sourcesLike(destination netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(w.sources), func(a netip.Addr) bool { return a.Is4() != destination.Is4() })
}

// onLink returns where a client asks its link: all on it, by its own address, and by that of a neighbour.
func onLink(source netip.Addr) []netip.Addr {
	if source.Is4() {
		return []netip.Addr{netip.MustParseAddr("255.255.255.255")}
	}
	neighbour := source.As16()
	neighbour[15] ^= 0x80
	return []netip.Addr{netip.MustParseAddr("ff02::1:2"), netip.MustParseAddr("ff0e::1"), netip.MustParseAddr("fe80::7"), netip.AddrFrom16(neighbour)}
}

// alwaysAllowed says what semantics.md lists, but for what iptables rules let through before.
func alwaysAllowed(c ruleset.Connection, protocol uint8, from uint16, icmpType byte) bool {
	six := c.Destination.Is6()
	to := netip.AddrPortFrom(c.Destination, c.Port)
	switch protocol {
	case bpftest.ICMPv6: // neighbour discovery, and what it rests on
		neighbour := c.Destination.IsMulticast() || c.Destination.IsLinkLocalUnicast() || netip.PrefixFrom(c.Source, 64).Masked().Contains(c.Destination)
		listeners := icmpType >= 130 && icmpType <= 132 || icmpType == 143
		return six && (listeners && (c.Local || c.Destination.IsMulticast()) || icmpType >= 133 && icmpType <= 137 && (c.Local || neighbour))
	case bpftest.UDP:
		toLink := c.Local || c.Destination.IsMulticast() || c.Destination.IsLinkLocalUnicast() || c.Destination == netip.MustParseAddr("255.255.255.255")
		return to == testResolver || toLink && (!six && from == 68 && c.Port == 67 || six && from == 546 && c.Port == 547)
	case bpftest.TCP:
		return to == testResolver || to == testServer && c.Local
	}
	return false
}

// build makes the bytes: mostly plain, else with what may stand between or in headers.
func (p *judgedPacket) build(r *rapid.T, protocol uint8, transport []byte) {
	six := p.Destination.Is6()
	odd := rapid.IntRange(0, 9).Draw(r, "odd")
	if odd < 2 && six {
		p.extend(r, protocol, transport)
		return
	}
	p.bytes = bpftest.IP(p.Source, p.Destination, protocol, transport)
	ports := slices.Contains([]uint8{bpftest.TCP, bpftest.UDP, bpftest.SCTP}, protocol)
	switch {
	case odd == 2 && (ports || p.Protocol == ruleset.ICMP): // cut short before the ports, or the type
		least := 8
		if !ports {
			least = 1
		}
		p.bytes = p.bytes[:len(p.bytes)-len(transport)+rapid.IntRange(0, least-1).Draw(r, "cut")]
		p.unreadable = true
	case odd == 3 && !six: // options
		words := rapid.IntRange(1, 10).Draw(r, "options")
		p.bytes = slices.Insert(p.bytes, 14+20, make([]byte, words*4)...)
		p.bytes[14] += byte(words)
	case odd == 4 && !six: // a fragment, the first or another
		flags := rapid.SampledFrom([]uint16{0x4000, 0x2000, 0x2001, 0x0001, 0x1fff, 0x3fff}).Draw(r, "fragment")
		binary.BigEndian.PutUint16(p.bytes[14+6:], flags)
		p.unreadable = flags&0x1fff != 0
	}
}

// extend puts extension headers in front of the transport header.
func (p *judgedPacket) extend(r *rapid.T, protocol uint8, transport []byte) {
	const hopByHop, routing, fragment, authentication, destination, mobility, hip, shim6 = 0, 43, 44, 51, 60, 135, 139, 140
	kinds := rapid.SliceOfN(rapid.SampledFrom([]byte{hopByHop, routing, fragment, authentication, destination, mobility, hip, shim6}), 1, 9).Draw(r, "extensions") // 8 and more are not read
	var headers []byte
	var starts []int
	for i, kind := range kinds {
		next := protocol
		if i < len(kinds)-1 {
			next = kinds[i+1]
		}
		words := rapid.IntRange(0, 3).Draw(r, "length")
		header := []byte{next, byte(words)}
		switch kind {
		case authentication: // counted in words of 4 bytes, less 2
			header = append(header, make([]byte, (words+2)*4-2)...)
		case fragment:
			header = append(header, 0, rapid.SampledFrom([]byte{0, 0, 0, 1, 8}).Draw(r, "offset"), 0, 0, 0, 1)
			if header[3]&0xf8 != 0 {
				p.unreadable = true
			}
		default:
			header = append(header, make([]byte, (words+1)*8-2)...)
		}
		starts = append(starts, len(headers))
		headers = append(headers, header...)
	}
	if len(kinds) > 8 {
		p.unreadable = true
	}
	whole := slices.Concat(headers, transport)
	if rapid.IntRange(0, 4).Draw(r, "cut") == 0 {
		whole = whole[:rapid.IntRange(0, len(whole)-1).Draw(r, "at")]
	}
	least := map[ruleset.Protocol]int{ruleset.TCP: 8, ruleset.UDP: 8, ruleset.SCTP: 8, ruleset.ICMP: 1}[p.Protocol]
	if len(kinds) >= 8 || len(headers)+least > len(whole) && least > 0 || starts[len(starts)-1]+4 > len(whole) {
		p.unreadable = true
	}
	p.bytes = bpftest.IP(p.Source, p.Destination, kinds[0], whole)
}

// verdicts counts the packets that the programs judged, in three ways.
func (f *fixture) verdicts(r *rapid.T) (counts [3]uint64) {
	for i, counter := range []bpf.DatapathCounter{
		bpf.DatapathCounterCOUNTER_VERDICT_ALLOW, bpf.DatapathCounterCOUNTER_VERDICT_DENY, bpf.DatapathCounterCOUNTER_VERDICT_AUDIT,
	} {
		var err error
		if counts[i], err = f.kernel.counter(counter); err != nil {
			r.Fatal(err)
		}
	}
	return counts
}

// compareVerdict judges a packet in both ways, and reports whether it was denied.
func (f *fixture) compareVerdict(t testing.TB, r *rapid.T, rules *ruleset.RuleSet, p judgedPacket) bool {
	e := rules.Explain(p.Connection)
	denied := e.Enforced && (e.Verdict == ruleset.Deny && !p.always || p.unreadable)
	audited := !denied && e.Audited && (e.AuditVerdict == ruleset.Deny && !p.always || p.unreadable)
	var want [3]uint64
	switch {
	case denied:
		want[1] = 1
	case audited:
		want[2] = 1
	case e.Enforced || e.Audited:
		want[0] = 1
	}
	before := f.verdicts(r)
	got := f.judge(r, p)
	after := f.verdicts(r)
	for i := range after {
		after[i] -= before[i]
	}
	if (got != 0) != denied || got > 1 || after != want {
		counters, _ := f.Counters()
		r.Fatalf("%+v, which has match sets %v of %v; counted %v\n%x\nunder %.3000s\ngave %d, counted %v; want denied %v, counted %v (rule %d of %q)", p.Connection, f.learned(t, p.Destination), f.lowered(p.Names), counters, p.bytes, fmt.Sprintf("%+v", rules), got, after, denied, want, e.Rule, e.Policy)
	}
	return denied
}

// lowered gives the match sets that names should have.
func (f *fixture) lowered(names []domain.Name) (sets []lower.MatchSet) {
	for _, name := range names {
		sets = append(sets, f.lowering.Match(name)...)
	}
	return sets
}

func (f *fixture) judge(r *rapid.T, p judgedPacket) uint32 {
	program := bpf.DatapathProgEgressForwarded
	if p.Local {
		program = bpf.DatapathProgEgressLocal
	}
	return f.runFrom(r, program, p.link, p.bytes)
}

func (f *fixture) runFrom(r *rapid.T, program string, link uint32, packet []byte) uint32 {
	options := &ebpf.RunOptions{Data: packet, Repeat: 1}
	if link > 0 {
		options.Context = socketBuffer{Ifindex: link}
	}
	verdict, err := f.kernel.programs[program].Run(options)
	if err != nil {
		r.Fatalf("run %s: %v", program, err)
	}
	return verdict
}

// compareRefusal asks for a name in both ways.
func (f *fixture) compareRefusal(r *rapid.T, rules *ruleset.RuleSet, w *world) {
	p := w.drawPacket(r)
	name, err := domain.FromWire(drawWire(r))
	if err != nil {
		r.Fatal(err)
	}
	f.id++
	question := slices.Concat([]byte{byte(f.id >> 8), byte(f.id), 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, name.Wire(), []byte{0, 1, 0, 1})
	p.Destination = testResolver.Addr()
	p.Source = rapid.SampledFrom(w.sourcesLike(p.Destination)).Draw(r, "client")
	packet := bpftest.Datagram(netip.AddrPortFrom(p.Source, uint16(rand.Uint32())), testResolver, question)
	refusal := rules.Refuses(p.Connection, name)
	audited := f.count(r, bpf.DatapathCounterCOUNTER_QUERY_AUDIT)
	refused := f.count(r, bpf.DatapathCounterCOUNTER_QUERY_REFUSED)
	program := bpf.DatapathProgDnsQueryForwarded
	if p.Local {
		program = bpf.DatapathProgDnsQueryLocal
	}
	got := f.runFrom(r, program, p.link, packet)
	audited = f.count(r, bpf.DatapathCounterCOUNTER_QUERY_AUDIT) - audited
	refused = f.count(r, bpf.DatapathCounterCOUNTER_QUERY_REFUSED) - refused
	wantAudited := refusal.AuditRefused && !refusal.Refused
	if (got != 0) != refusal.Refused || (refused == 1) != refusal.Refused || (audited == 1) != wantAudited {
		r.Fatalf("question for %s of %+v under %+v: gave %d, counted %d refused, %d audited; want %+v", name, p.Connection, rules, got, refused, audited, refusal)
	}
}

func (f *fixture) count(r *rapid.T, counter bpf.DatapathCounter) uint64 {
	value, err := f.kernel.counter(counter)
	if err != nil {
		r.Fatal(err)
	}
	return value
}
