package netfilter

import (
	"crypto/sha256"
	"net"
	"os/exec"
	"strings"
	"testing"

	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
)

// The kernel answers in tables of any content; the rules here only have to be many and of several lengths.
func TestLegacyContentIsOfRulesAlone(t *testing.T) {
	netfiltertest.EnterNode(t)
	families := []*family{
		{tools: tools{protocol: ipv4}, tables: []*table{{name: "mangle"}, {name: "filter"}}},
		{tools: tools{protocol: ipv6}, tables: []*table{{name: "mangle"}, {name: "filter"}}},
	}
	content := func() [sha256.Size]byte {
		t.Helper()
		c, err := legacyContent(families, func(*family) ([]string, error) { return []string{"mangle", "filter"}, nil })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	iptables := func(line string) {
		t.Helper()
		fields := strings.Fields(line)
		if out, err := exec.CommandContext(t.Context(), fields[0]+"-legacy", fields[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
	if out, err := exec.CommandContext(t.Context(), "ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		t.Fatalf("set lo up: %v: %s", err, out)
	}
	for _, line := range []string{
		"iptables -t mangle -A OUTPUT -d 127.0.0.1 -p udp --dport 9 -m comment --comment one -j RETURN",
		"iptables -t filter -A OUTPUT -d 127.0.0.1 -j ACCEPT",
		"ip6tables -t mangle -A OUTPUT -d ::1 -p udp --dport 9 -m comment --comment one -j RETURN",
		"ip6tables -t filter -A OUTPUT -d ::1 -j ACCEPT",
	} {
		iptables(line)
	}
	before := content()
	for _, address := range []string{"127.0.0.1:9", "[::1]:9"} {
		conn, err := net.Dial("udp", address)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("counted")) // refused or not
		_ = conn.Close()
	}
	if content() != before {
		t.Error("a packet that was counted changed the content")
	}
	for _, line := range []string{
		"iptables -t mangle -R OUTPUT 1 -d 127.0.0.1 -p udp --dport 7 -m comment --comment one -j RETURN",
		"ip6tables -t mangle -R OUTPUT 1 -d ::1 -p udp --dport 9 -m comment --comment two -j RETURN",
		"iptables -t filter -P FORWARD DROP",
		"ip6tables -t filter -A INPUT -j ACCEPT",
	} {
		iptables(line)
		now := content()
		if now == before {
			t.Errorf("%s: the content is what it was", line)
		}
		before = now
	}
}
