package explain_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/explain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

var now = time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)

func name(t testing.TB, text string) domain.Name {
	t.Helper()
	n, err := domain.ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// mapping makes one of `asked alias … address`, which ends after ttl.
func mapping(t testing.TB, text string, ttl time.Duration, former ...string) explain.Mapping {
	t.Helper()
	words := strings.Fields(text)
	m := explain.Mapping{Domain: name(t, words[0]), Address: netip.MustParseAddr(words[len(words)-1]), ExpiresAt: now.Add(ttl)}
	message := &namewardv1.Mapping{Domain: words[0], Address: m.Address.String(), ExpireTime: timestamppb.New(m.ExpiresAt)}
	for _, alias := range words[1 : len(words)-1] {
		m.Chain, message.Chain = append(m.Chain, name(t, alias)), append(message.Chain, alias)
	}
	for _, alias := range former {
		m.Former = append(m.Former, explain.Former{Name: name(t, alias), ExpiresAt: now.Add(time.Second)})
	}
	m.Message = func() *namewardv1.Mapping { return message }
	return m
}

// oddMapping is one of a name that people do not write.
func oddMapping(t testing.TB) explain.Mapping {
	t.Helper()
	m := mapping(t, "odd.example 192.0.2.11", time.Minute)
	var err error
	if m.Domain, err = domain.ParseCanonical(`caf\233.docker.example`); err != nil {
		t.Fatal(err)
	}
	return m
}

// mappings is a node's table as a list.
type mappings []explain.Mapping

func (m mappings) OfName(name domain.Name) []explain.Mapping {
	return slices.DeleteFunc(slices.Clone(m), func(m explain.Mapping) bool {
		return m.Domain != name && !slices.Contains(m.Chain, name) &&
			!slices.ContainsFunc(m.Former, func(f explain.Former) bool { return f.Name == name })
	})
}

func (m mappings) OfAddresses(addresses []netip.Addr) []explain.Mapping {
	return slices.DeleteFunc(slices.Clone(m), func(m explain.Mapping) bool { return !slices.Contains(addresses, m.Address) })
}

func rules(t testing.TB, policies ...*namewardv1.Policy) *ruleset.RuleSet {
	t.Helper()
	var parsed []ruleset.Policy
	for _, message := range policies {
		policy, err := ruleset.ParsePolicy(message)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, policy)
	}
	pattern, err := domain.ParsePattern("*.saas.example")
	if err != nil {
		t.Fatal(err)
	}
	return ruleset.New(parsed, ruleset.NewDomainSet("domainSets/saas", []domain.Pattern{pattern}))
}

func fleetRules(t *testing.T) *ruleset.RuleSet {
	uid := uint32(1000)
	web := []*namewardv1.Workload{{Cidrs: []string{"10.1.0.0/24", "fd01::/64"}}}
	https := []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: 443}, {Protocol: namewardv1.Protocol_UDP, Port: 8000, EndPort: 9000}}
	allow, deny := namewardv1.Rule_ALLOW, namewardv1.Rule_DENY
	return rules(t,
		&namewardv1.Policy{Name: "policies/a-trackers", Priority: -1, Workloads: web, Rules: []*namewardv1.Rule{
			{Action: deny, Domains: []string{"*.tracker.example"}, QueryAction: namewardv1.Rule_REFUSE},
			{Action: deny, Domains: []string{"two.shared.example"}, Ports: https[:1]},
		}},
		&namewardv1.Policy{Name: "policies/b-web", Workloads: web, Rules: []*namewardv1.Rule{
			{Action: allow, Domains: []string{"api.example", "*.docker.example"}, Ports: https},
			{Action: allow, Cidrs: []string{"198.51.100.0/24", "2001:db8:5::1"}},
			{Action: allow, Domains: []string{"one.shared.example"}, DomainSets: []string{"domainSets/saas"}},
		}},
		&namewardv1.Policy{Name: "policies/c-trial", Mode: namewardv1.Policy_AUDIT, Workloads: web, Rules: []*namewardv1.Rule{
			{Action: allow, Domains: []string{"api.example"}},
		}},
		&namewardv1.Policy{Name: "policies/d-pods", Workloads: []*namewardv1.Workload{{Interface: "cni+"}}},
		&namewardv1.Policy{Name: "policies/e-host", Rules: []*namewardv1.Rule{{Action: allow, Domains: []string{"*"}}}},
		&namewardv1.Policy{Name: "policies/f-processes", Priority: 5, Workloads: []*namewardv1.Workload{
			{Uid: &uid}, {Cgroup: "/batch.slice"}, {SystemdUnit: "web.service"},
		}},
	)
}

func fleetFacts(t *testing.T) explain.Facts {
	return explain.Facts{
		Rules: fleetRules(t), Now: now,
		Mappings: mappings{
			mapping(t, "api.example 192.0.2.1", time.Minute),
			mapping(t, "api.example 192.0.2.1", -time.Minute),
			mapping(t, "www.shop.example edge.docker.example 192.0.2.2", time.Minute),
			mapping(t, "old.shop.example new.cdn.example 192.0.2.3", time.Minute, "was.docker.example"),
			mapping(t, "one.shared.example 192.0.2.4", time.Minute),
			mapping(t, "two.shared.example 192.0.2.4", 2*time.Minute),
			mapping(t, "one.shared.example 192.0.2.5", time.Minute),
			mapping(t, "one.shared.example 2001:db8::5", time.Minute),
			mapping(t, "x.saas.example 192.0.2.6", time.Minute),
			mapping(t, "api.example 192.0.2.7", -12*time.Second),
			mapping(t, "docker.example 192.0.2.8", time.Minute),
			mapping(t, "gone.docker.example 192.0.2.10", -time.Hour),
			mapping(t, "ads.tracker.example 192.0.2.9", time.Minute),
			oddMapping(t),
		},
		Always: &explain.Always{
			Resolvers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.53:53")},
			Servers:   []netip.AddrPort{netip.MustParseAddrPort("192.0.2.54:7443")},
			Own:       func(address netip.Addr) bool { return address == netip.MustParseAddr("10.1.0.1") },
		},
		PassedOver: []explain.PassedOver{{
			Policy:  ruleset.Policy{Name: "policies/b-off", Mode: ruleset.Disabled},
			Outcome: namewardv1.RuleEvaluation_DISABLED, Reason: "is disabled",
		}},
	}
}

// question reads `workload destination protocol port`, with `/` and a source port, `@` and an interface.
func question(t testing.TB, text string) *namewardv1.ExplainConnectionRequest {
	t.Helper()
	words := strings.Fields(text)
	request := &namewardv1.ExplainConnectionRequest{Destination: words[1], Protocol: namewardv1.Protocol(namewardv1.Protocol_value[words[2]])}
	request.Workload, request.Interface, _ = strings.Cut(words[0], "@")
	if len(words) > 3 {
		port, from, _ := strings.Cut(words[3], "/")
		request.Port, request.SourcePort = number(t, port), number(t, from)
	}
	return request
}

func number(t testing.TB, text string) uint32 {
	t.Helper()
	var n uint32
	if text != "" {
		if err := json.Unmarshal([]byte(text), &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// goldens are questions by the file that has the answer.
var goldens = map[string]string{
	"allowed-by-name":        "10.1.0.7 192.0.2.1 TCP 443",
	"allowed-by-alias":       "10.1.0.7 192.0.2.2 TCP 443",
	"former-alias":           "10.1.0.7 192.0.2.3 TCP 443",
	"domain-set":             "10.1.0.7 192.0.2.6 UDP 53",
	"cidr":                   "10.1.0.7 198.51.100.9 ICMP",
	"other-port":             "10.1.0.7 192.0.2.1 TCP 80",
	"shared-address":         "10.1.0.7 192.0.2.4 TCP 443",
	"ended":                  "10.1.0.7 192.0.2.7 TCP 443",
	"apex":                   "10.1.0.7 192.0.2.8 TCP 443",
	"unknown-address":        "10.1.0.7 203.0.113.1 TCP 443",
	"unselected":             "10.2.0.7 203.0.113.1 TCP 443",
	"interface":              "10.2.0.7@cni3 203.0.113.1 TCP 443",
	"other-interface":        "10.2.0.7@eth0 203.0.113.1 TCP 443",
	"resolver":               "10.1.0.7 192.0.2.53 UDP 53",
	"server-forwarded":       "10.1.0.7 192.0.2.54 TCP 7443",
	"server":                 "uid:1000 192.0.2.54 TCP 7443",
	"own-address":            "10.1.0.7 10.1.0.1 TCP 443",
	"loopback":               "host 127.0.0.1 TCP 443",
	"dhcp-client":            "10.1.0.7 255.255.255.255 UDP 67/68",
	"dhcp-maybe":             "10.1.0.7 255.255.255.255 UDP 67",
	"icmpv6":                 "fd01::7 2001:db8:9::1 ICMP",
	"from-own-address":       "10.1.0.1 203.0.113.1 TCP 443",
	"no-port":                "10.1.0.7 192.0.2.1 TCP",
	"name-differs":           "10.1.0.7 one.shared.example TCP 443",
	"name-both-families":     "host one.shared.example TCP 443",
	"name-as-alias":          "10.1.0.7 Edge.Docker.Example. TCP 443",
	"name-known-but-refused": "10.1.0.7 ads.tracker.example TCP 443",
	"name-ended":             "fd01::7 api.example TCP 443",
	"name-gone":              "10.1.0.7 gone.docker.example TCP 443",
	"name-unseen":            "10.1.0.7 fresh.docker.example TCP 443",
	"name-unseen-denied":     "10.1.0.7 elsewhere.example TCP 443",
	"name-unseen-refused":    "10.1.0.7 new.tracker.example TCP 443",
	"name-odd":               `10.1.0.7 caf\233.docker.example TCP 443`,
	"name-internationalised": "host bücher.example TCP 443",
	"user":                   "uid:1000 192.0.2.1 TCP 443",
	"other-user":             "uid:1001 192.0.2.1 TCP 443",
	"control-group":          "uid:1001,cgroup:/batch.slice/job-7.scope 192.0.2.1 TCP 443",
	"unit":                   "unit:web.service 192.0.2.1 TCP 443",
	"control-group-of-unit":  "cgroup:/system.slice/web.service/worker 192.0.2.1 TCP 443",
}

func TestAnswers(t *testing.T) {
	for file, text := range goldens {
		t.Run(file, func(t *testing.T) {
			q, err := explain.Parse(question(t, text))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, file, text, explain.Answer(q, fleetFacts(t)))
		})
	}
	t.Run("labels", func(t *testing.T) {
		facts := fleetFacts(t)
		facts.Mappings, facts.Always = nil, nil
		for file, text := range map[string]string{
			"labels-name":    "10.1.0.7 api.example TCP 443",
			"labels-address": "10.1.0.7 192.0.2.1 TCP 443",
		} {
			q, err := explain.Parse(question(t, text))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, file, text, explain.Answer(q, facts))
		}
	})
}

func compare(t *testing.T, file, question string, answer *namewardv1.ExplainConnectionResponse) {
	t.Helper()
	varying, err := protojson.Marshal(answer)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	got.WriteString("# " + question + "\n")
	if err := json.Indent(&got, varying, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	path := filepath.Join("testdata", file+".json")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestEveryFaultIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"uid:x@eth0 a..b ICMP 70000/70000":         "workload interface destination port source_port",
		"uid:1,pid:4 *.example TCP 1":              "workload destination",
		"cgroup:batch 192.0.2.1 TCP 1":             "workload",
		"unit:web 192.0.2.1 TCP 1":                 "workload",
		"10.1.0.300 192.0.2.1 TCP 1":               "workload",
		"10.1.0.7@veth+ 2001:db8::1 TCP 1":         "interface destination",
		"10.1.0.7@an-interface-name 10.0.0.1 TCP":  "interface",
		"10.1.0.7 192.0.2.1 ICMP 1":                "port",
		"host 192.0.2.1 TCP 1":                     "",
		"::ffff:10.1.0.7 ::ffff:192.0.2.1 SCTP 1":  "",
		"uid:4294967295 192.0.2.1 TCP 1":           "workload",
		"cgroup:/sys/fs/cgroup/a 192.0.2.1 TCP 1":  "workload",
		"uid:7,unit:web.service 192.0.2.1 TCP 1":   "",
		"fe80::1%eth0@client0 2001:db8::1 TCP 1/9": "",
	} {
		_, err := explain.Parse(question(t, text))
		var got []string
		if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // the list itself is wanted
			for _, fault := range joined.Unwrap() {
				field, _, _ := strings.Cut(fault.Error(), ":")
				got = append(got, field)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %v, want faults of %s", text, err, want)
		}
	}
}

// TestManyMappings: a list that is cut short says so, and every mapping is judged all the same.
func TestManyMappings(t *testing.T) {
	facts := fleetFacts(t)
	var many mappings
	for i := range 1500 {
		many = append(many, mapping(t, "h"+strings.Repeat("x", i%30)+string(rune('a'+i%26))+"."+strings.Repeat("y", i/30+1)+".example 192.0.2.4", time.Minute))
	}
	many = append(many, mapping(t, "zzz.docker.example 192.0.2.4", time.Minute))
	facts.Mappings = many
	q, err := explain.Parse(question(t, "10.1.0.7 zzz.docker.example TCP 443"))
	if err != nil {
		t.Fatal(err)
	}
	answer := explain.Answer(q, facts)
	last := answer.GetMappings()[len(answer.GetMappings())-1]
	if len(answer.GetMappings()) != 1000 || last.GetDomain() != "zzz.docker.example" || answer.GetVerdict() != namewardv1.Verdict_ALLOW {
		t.Errorf("%d mappings, the last of %s; %s", len(answer.GetMappings()), last.GetDomain(), answer.GetReason())
	}
	if !strings.Contains(strings.Join(answer.GetNotes(), "\n"), "501 more live mappings") {
		t.Errorf("notes: %q", answer.GetNotes())
	}
}
