package netfilter

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// What goes to a trusted resolver is not judged, but where the programs that judge know more than the rules: of
// headers under IPv6, and of what is to be accepted. Another server on the port is judged.
func TestQuestionsThatAreNotJudged(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("[2001:db8::53]:53")
	second, other := netip.MustParseAddrPort("192.0.2.54:53"), netip.MustParseAddrPort("192.0.2.54:5353")
	const passed = `-m comment --comment "nameward: no policy stops what goes to a trusted resolver"`
	for name, c := range map[string]struct {
		resolvers []netip.AddrPort
		target    string
		protocol  protocol
		want      []string
		unless    string // of what is judged
	}{
		"one":      {[]netip.AddrPort{v4, v6}, Return, ipv4, nil, "! -d 192.0.2.53/32 "},
		"one port": {[]netip.AddrPort{v4, v6, second}, Return, ipv4, []string{"-d 192.0.2.53/32 " + passed + " -j RETURN"}, "! -d 192.0.2.54/32 "},
		"two ports": {[]netip.AddrPort{v4, other}, Return, ipv4, []string{
			"-d 192.0.2.53/32 -p udp -m udp --dport 53 " + passed + " -j RETURN", "-d 192.0.2.53/32 -p tcp -m tcp --dport 53 " + passed + " -j RETURN",
			"-d 192.0.2.54/32 -p udp -m udp --dport 5353 " + passed + " -j RETURN", "-d 192.0.2.54/32 -p tcp -m tcp --dport 5353 " + passed + " -j RETURN",
		}, ""},
		"IPv6":   {[]netip.AddrPort{v4, v6}, Return, ipv6, nil, ""},
		"ACCEPT": {[]netip.AddrPort{v4, v6}, Accept, ipv4, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			mangle := wantedTables(Config{Resolvers: c.resolvers, AllowedTarget: c.target, DeniedTarget: Reject}, c.protocol)[0]
			for hook, query := range map[string]string{"PREROUTING": queryForwarded, "OUTPUT": queryLocal} {
				rules := rulesOf(t, mangle, query)
				if got := rules[1:min(1+len(c.want), len(rules))]; !slices.Equal(got, c.want) {
					t.Errorf("%s: got %q, want %q", query, got, c.want)
				}
				rest, all := rules[1+len(c.want):], rulesOf(t, mangle, chainPrefix+hook)
				all = slices.Clone(all[len(all)-len(rest):])
				for i := range all {
					all[i] = c.unless + all[i]
				}
				if !slices.Equal(rest, all) {
					t.Errorf("%s: what is not passed meets %q, not what %s ends with: %q", query, rest, hook, all)
				}
			}
		})
	}
}

// Whoever lists our chains reads at each rule what it is for. The jumps to them, which each packet meets, say it by the
// names of the chains.
func TestEveryRuleHasAComment(t *testing.T) {
	resolvers := []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.53:53"), netip.MustParseAddrPort("192.0.2.54:5353"),
		netip.MustParseAddrPort("[2001:db8::53]:53"), netip.MustParseAddrPort("[2001:db8::54]:5353"),
	}
	var tables []*table
	for _, p := range []protocol{ipv4, ipv6} {
		for _, allowed := range []string{Return, Accept} {
			for _, denied := range []string{Reject, Drop} {
				for _, asked := range [][]netip.AddrPort{resolvers, {resolvers[0], resolvers[2]}} {
					tables = append(tables, wantedTables(Config{Resolvers: asked, AllowedTarget: allowed, DeniedTarget: denied}, p)...)
				}
			}
		}
		tables = append(tables, overlapTable(Programs{}, resolvers))
	}
	for _, of := range tables {
		for _, c := range of.chains {
			for _, rule := range c.rules {
				wantComment(t, of.name+" "+c.name, rule)
			}
		}
	}
}

func wantComment(t *testing.T, where, rule string) {
	t.Helper()
	if strings.Count(rule, ` -m comment --comment "nameward: `) != 1 && !strings.HasPrefix(rule, `-m comment --comment "nameward: `) {
		t.Errorf("%s: %q has no comment, or several", where, rule)
	}
}

func rulesOf(t *testing.T, of *table, name string) []string {
	t.Helper()
	i := slices.IndexFunc(of.chains, func(c chain) bool { return c.name == name })
	if i < 0 {
		t.Fatalf("no chain %s", name)
	}
	return of.chains[i].rules
}
