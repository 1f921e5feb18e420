package datapath

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/miekg/dns"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protojson"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/observe"
)

var (
	testResolver = netip.MustParseAddrPort("192.0.2.53:53")
	testClient   = netip.MustParseAddrPort("10.0.0.7:40000")
	testOrigin   = netip.MustParseAddrPort("10.0.0.7:50000")
)

// fixture is a datapath on a bpf file system of its own.
type fixture struct {
	*Datapath
	cfg   Config
	table *observe.Table
	flows *observe.Flows
	id    uint16
}

func newFixture(t testing.TB, edit ...func(*Config)) *fixture {
	t.Helper()
	bpftest.RequirePrivileged(t)
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatalf("mount bpf file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f := &fixture{cfg: Config{
		PinDir: filepath.Join(dir, "nameward"), StateDir: t.TempDir(),
		MinTTL: 30 * time.Second, MaxTTL: 24 * time.Hour, TTLGrace: 30 * time.Second, QueryTimeout: 10 * time.Second,
		MaxMappings: 4096, MaxAddressesPerName: 1000, MaxQueries: 1024, MaxPatterns: 4096,
	}}
	for _, edit := range edit {
		edit(&f.cfg)
	}
	f.open(t)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// open opens the datapath, as a new process would.
func (f *fixture) open(t testing.TB) {
	t.Helper()
	f.table, f.flows = observe.NewTable(0, int(f.cfg.MaxAddressesPerName)), observe.NewFlows(0)
	var err error
	if f.Datapath, err = Open(f.cfg, f.table, f.flows); err != nil {
		t.Fatalf("open: %+v", err)
	}
	if err := f.SetEndpoints([]netip.AddrPort{testResolver}, nil); err != nil {
		t.Fatal(err)
	}
}

// restart closes the datapath and opens it anew.
func (f *fixture) restart(t testing.TB) {
	t.Helper()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	f.open(t)
}

func (f *fixture) apply(t testing.TB, rules *ruleset.RuleSet) {
	t.Helper()
	if err := f.Apply(t.Context(), rules); err != nil {
		t.Fatalf("apply: %v", err)
	}
}

// run runs a program on a packet, on the loopback device.
func (f *fixture) run(t testing.TB, program string, packet []byte) uint32 {
	t.Helper()
	verdict, err := f.kernel.programs[program].Run(&ebpf.RunOptions{Data: packet, Repeat: 1})
	if err != nil {
		t.Fatalf("run %s: %v", program, err)
	}
	return verdict
}

// resolve asks for a name and has the resolver answer.
func (f *fixture) resolve(t testing.TB, name string, ttl uint32, records ...string) {
	t.Helper()
	f.id++
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(name), dns.TypeA)
	question.Id = f.id
	f.send(t, bpf.DatapathProgDnsQueryForwarded, testClient, testResolver, question)
	answer := new(dns.Msg)
	answer.SetReply(question)
	for _, record := range records {
		rr, err := dns.NewRR(record)
		if err != nil {
			t.Fatal(err)
		}
		rr.Header().Ttl = ttl
		answer.Answer = append(answer.Answer, rr)
	}
	f.send(t, bpf.DatapathProgDnsResponse, testResolver, testClient, answer)
}

func (f *fixture) send(t testing.TB, program string, from, to netip.AddrPort, message *dns.Msg) {
	t.Helper()
	wire, err := message.Pack()
	if err != nil {
		t.Fatal(err)
	}
	f.run(t, program, bpftest.Datagram(from, to, wire))
}

// opens reports whether a process of the node may connect.
func (f *fixture) opens(t testing.TB, destination string) bool {
	t.Helper()
	packet := bpftest.Connection(bpftest.TCP, testOrigin, netip.MustParseAddrPort(destination))
	return f.run(t, bpf.DatapathProgEgressLocal, packet) == 0
}

// hostRules is a rule set of one enforcing policy for the node's own processes.
func hostRules(t testing.TB, rules ...string) *ruleset.RuleSet {
	t.Helper()
	return policies(t, fmt.Sprintf(`{"name": "policies/host", "mode": "ENFORCE", "established": "CUT", "workloads": [{"host": true}], "rules": [%s]}`, strings.Join(rules, ", ")))
}

func allow(domains ...string) string {
	list, _ := json.Marshal(domains)
	return fmt.Sprintf(`{"action": "ALLOW", "domains": %s}`, list)
}

func policies(t testing.TB, policies ...string) *ruleset.RuleSet {
	t.Helper()
	var message agentv1.RuleSet
	if err := protojson.Unmarshal(fmt.Appendf(nil, `{"policies": [%s]}`, strings.Join(policies, ", ")), &message); err != nil {
		t.Fatal(err)
	}
	rules, err := ruleset.FromProto(&message)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}
