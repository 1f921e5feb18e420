package datapath

import (
	"fmt"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
)

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
