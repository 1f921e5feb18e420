package dataplane

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestValidateNamesEveryFault(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Servers = []string{"nowhere"}
	cfg.NodeName = "-"
	cfg.Labels = map[string]string{"": "x"}
	cfg.TrustedResolvers = []string{"example.com"}
	cfg.MinTTL, cfg.MaxTTL = -1, -2
	cfg.TTLGrace = -1
	cfg.DNSQueryTimeout = 0
	cfg.MaxMappings, cfg.MaxAddressesPerName, cfg.MaxQueries = 0, 1001, 0
	cfg.IPTables, cfg.AllowedTarget, cfg.DeniedTarget = "ipchains", "DROP", "LOG"
	cfg.Mark = 3
	cfg.MetricsListen, cfg.LogLevel, cfg.LogFormat = "x", "loud", "xml"
	cfg.StateDir, cfg.BPFDir, cfg.Socket = "state", "/sys/fs/bpf/a b", "/"
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, flag := range []string{
		"tls-cert", "server", "node-name", "label", "trusted-resolver", "min-ttl", "max-ttl", "ttl-grace", "dns-query-timeout",
		"max-mappings", "max-addresses-per-name", "max-queries", "iptables", "allowed-target", "denied-target", "mark",
		"metrics-listen", "log-level", "log-format", "state-dir", "bpf-dir", "socket",
	} {
		if !strings.Contains("\n"+err.Error(), "\n"+flag+": ") {
			t.Errorf("no fault of %s in:\n%v", flag, err)
		}
	}
}

// TestAddressesHavePorts: an address that nobody could be reached at is told of at once, not tried for ever.
func TestAddressesHavePorts(t *testing.T) {
	for address, valid := range map[string]bool{
		"127.0.0.1:7443": true, "[::1]:7443": true, "policy.example.org:7443": true,
		"127.0.0.1": false, "127.0.0.1:": false, "127.0.0.1:0": false, "127.0.0.1:70000": false, "127.0.0.1:policy": false, ":7443": false, "::1:7443": false, "": false,
	} {
		cfg := DefaultConfig()
		cfg.Servers = []string{address}
		if err := cfg.ValidateNode(); (err == nil) != valid {
			t.Errorf("server %q: %v, want valid %t", address, err, valid)
		}
	}
	cfg := DefaultConfig()
	cfg.MetricsListen = "127.0.0.1:70000"
	cfg.Labels = map[string]string{"role": strings.Repeat("x", 254)}
	err := cfg.ValidateNode()
	for _, flag := range []string{"metrics-listen", "label"} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+flag+": ") {
			t.Errorf("no fault of %s in: %v", flag, err)
		}
	}
}

func TestTrustedResolvers(t *testing.T) {
	cfg := Config{TrustedResolvers: []string{"192.0.2.53", "192.0.2.54:5353", "2001:db8::53", "[2001:db8::54]", "[2001:db8::55]:5353", "::ffff:192.0.2.55"}}
	got, err := cfg.resolvers()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"192.0.2.53:53", "192.0.2.54:5353", "[2001:db8::53]:53", "[2001:db8::54]:53", "[2001:db8::55]:5353", "192.0.2.55:53"}
	if diff := cmp.Diff(want, texts(got)); diff != "" {
		t.Errorf("resolvers (-want +got): %s", diff)
	}
	for _, text := range []string{"0.0.0.0", "::", "224.0.0.251:5353", "[ff02::fb]:5353", "255.255.255.255", "192.0.2.53:0", "192.0.2.53:dns", "resolver"} {
		cfg := Config{TrustedResolvers: []string{text}}
		if _, err := cfg.resolvers(); err == nil {
			t.Errorf("%s is accepted, and no answer comes from there", text)
		}
	}
}

func TestSystemResolvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# nameserver 192.0.2.1\nsearch example.com\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\n")
	got, err := systemResolvers(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"127.0.0.53:53", "[fe80::1]:53"}, texts(got)); diff != "" {
		t.Errorf("resolvers (-want +got): %s", diff)
	}
	write("options edns0\n")
	if _, err := systemResolvers(path); err == nil {
		t.Error("a file without name servers is accepted")
	}
}

func texts(list []netip.AddrPort) []string {
	var out []string
	for _, e := range list {
		out = append(out, e.String())
	}
	return out
}
