package dataplane

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/observe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patient = 10 * time.Second

func (fakeDatapath) TakeIn() error { return nil }

func (fakeDatapath) Inherit([]string) (bool, error) { return false, nil }

func (fakeDatapath) Judges() bool { return true }

func (fakeDatapath) Carry() error { return nil }

func (fakeDatapath) NamesOf(map[netip.Addr]bool) (map[netip.Addr]observe.Names, error) {
	return nil, nil
}

func (fakeConntrack) SetEndpoints(_, _ []netip.AddrPort) {}

func (fakeFilter) Overlap(context.Context) error { return nil }

func (fakeFilter) Watch(context.Context, func()) error { return nil }

func (fakeFilter) IPv6() bool { return true }

func (fakeFilter) Backend() string { return netfilter.NFT }

func testConfig(t *testing.T, server string) Config {
	t.Helper()
	dir := t.TempDir()
	cfg := DefaultConfig()
	cfg.Servers, cfg.Insecure, cfg.NodeName = []string{server}, true, "lab"
	cfg.Labels = map[string]string{"role": "web"}
	cfg.StateDir, cfg.Socket, cfg.BPFDir = filepath.Join(dir, "state"), filepath.Join(dir, "agent.sock"), filepath.Join(dir, "bpf")
	cfg.TrustedResolvers = []string{"192.0.2.53"}
	cfg.MetricsListen = freeAddress(t)
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func freeAddress(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

// startAgent runs an agent until the test stops it.
func startAgent(t *testing.T, cfg Config, n *fakeNode) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- run(ctx, cfg, n.kernel(), slog.New(slog.DiscardHandler)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func someRules() *ruleset.RuleSet {
	return ruleset.New([]ruleset.Policy{{
		Name: "policies/p", Workloads: []ruleset.Workload{{Host: true}},
		Rules: []ruleset.Rule{{Domains: enforcetest.Patterns(2)}},
	}})
}

func localClient(t *testing.T, cfg Config) agentv1.LocalServiceClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return agentv1.NewLocalServiceClient(conn)
}

func TestWholeAgent(t *testing.T) {
	address, server := startServer(t, someRules())
	cfg, n := testConfig(t, address), newFakeNode()
	stop := startAgent(t, cfg, n)
	server.await(t, "ack of revision 7", func(r *agentv1.SyncRequest) bool { return r.GetAck().GetRevision() == 7 })
	server.await(t, "mapping", func(r *agentv1.SyncRequest) bool {
		mappings := r.GetObservations().GetMappings()
		return len(mappings) == 1 && mappings[0].GetDomain() == "www.example.com" && mappings[0].GetNode() == "nodes/lab"
	})
	server.await(t, "report of what is always allowed", func(r *agentv1.SyncRequest) bool {
		return slices.Equal(r.GetStatus().GetPolicyServers(), []string{address})
	})
	if hello := server.seen[0].GetHello(); !slices.Equal(hello.GetTrustedResolvers(), []string{"192.0.2.53:53"}) {
		t.Errorf("hello %v", hello)
	}
	if applied, _ := n.maps.Applied(); applied.ID() != someRules().ID() || !n.hooks.Stand() {
		t.Error("the rule set is not in force")
	}
	local := localClient(t, cfg)
	status, err := local.GetStatus(t.Context(), &agentv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if s := status.GetNode().GetStatus(); s.GetAppliedRevision() != 7 || !s.GetConnected() || status.GetServer() != address ||
		len(status.GetDegraded()) > 0 || len(s.GetTrustedResolvers()) != 1 || len(s.GetPolicyServers()) != 1 {
		t.Errorf("status %v, want revision 7, connected to %s, no faults", status, address)
	}
	explanation, err := local.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{Destination: "n0000001.example"})
	if err != nil || explanation.GetVerdict() != namewardv1.Verdict_ALLOW || !explanation.GetEnforced() {
		t.Errorf("ExplainConnection: %v, %v", explanation, err)
	}
	for _, want := range []string{
		`nameward_agent_dns_responses_total{result="learned"} 3`, `nameward_agent_verdicts_total{verdict="deny"} 2`,
		"nameward_agent_revision 7", "nameward_agent_connected 1", "nameward_agent_events_lost_total 1", "nameward_agent_mended_rules_total 0",
	} {
		if metrics := scrape(t, cfg); !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %s:\n%s", want, metrics)
		}
	}
	stop()
	if rules, _ := n.maps.Applied(); rules.ID() != someRules().ID() || !n.hooks.Stand() {
		t.Error("the rule set is not in force after the agent stopped")
	}
}

func scrape(t *testing.T, cfg Config) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + cfg.MetricsListen + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestLastRuleSetIsInForceWithoutServer(t *testing.T) {
	address, server := startServer(t, someRules())
	cfg := testConfig(t, address)
	stop := startAgent(t, cfg, newFakeNode())
	server.await(t, "ack", func(r *agentv1.SyncRequest) bool { return r.GetAck() != nil })
	stop()

	rebooted := newFakeNode()
	cfg.Servers = []string{"127.0.0.1:1"}
	startAgent(t, cfg, rebooted)
	status, err := localClient(t, cfg).GetStatus(t.Context(), &agentv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if s := status.GetNode().GetStatus(); s.GetAppliedRevision() != 7 || s.GetConnected() {
		t.Errorf("status %v, want revision 7, not connected", status)
	}
	if applied, _ := rebooted.maps.Applied(); applied.ID() != someRules().ID() {
		t.Error("the rule set of before is not in force")
	}
	if want := "endpoints apply hooks retire"; !strings.HasPrefix(rebooted.history(), want) {
		t.Errorf("order of the start: %s, want %s first", rebooted.history(), want)
	}
}

// Before the first rule set a node reaches nothing, if it is told so; after it, what that says.
func TestBeforeTheFirstRuleSet(t *testing.T) {
	cfg, n := testConfig(t, "127.0.0.1:1"), newFakeNode()
	stop := startAgent(t, cfg, n)
	if _, err := localClient(t, cfg).GetStatus(t.Context(), &agentv1.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if applied, times := n.maps.Applied(); times != 0 {
		t.Errorf("ALLOW: in force is %v", applied)
	}
	stop()

	cfg.BeforeFirstRuleSet = DenyAll
	stop = startAgent(t, cfg, n)
	explanation, err := localClient(t, cfg).ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{Destination: "192.0.2.1"})
	if err != nil || explanation.GetVerdict() != namewardv1.Verdict_DENY || !explanation.GetEnforced() {
		t.Errorf("DENY: got %v, %v", explanation, err)
	}
	stop()

	address, server := startServer(t, someRules())
	cfg.Servers = []string{address}
	stop = startAgent(t, cfg, n)
	server.await(t, "ack of revision 7", func(r *agentv1.SyncRequest) bool { return r.GetAck().GetRevision() == 7 })
	stop()
	if applied, _ := n.maps.Applied(); applied.ID() != someRules().ID() {
		t.Errorf("in force is %v, want what the server sent", applied)
	}
	// The disk lost it, the kernel did not.
	if err := os.Remove(filepath.Join(cfg.StateDir, "rule-set")); err != nil {
		t.Fatal(err)
	}
	cfg.Servers = []string{"127.0.0.1:1"}
	startAgent(t, cfg, n)
	if _, err := localClient(t, cfg).GetStatus(t.Context(), &agentv1.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if applied, _ := n.maps.Applied(); applied.ID() != someRules().ID() {
		t.Errorf("in force is %v, want what the server sent", applied)
	}
}

func TestUnmetRequirementChangesNothing(t *testing.T) {
	cfg, n := testConfig(t, "127.0.0.1:1"), newFakeNode()
	expect := func(name string) {
		t.Helper()
		err := run(t.Context(), cfg, n.kernel(), slog.New(slog.DiscardHandler))
		var unmet *RequirementsError
		if !errors.As(err, &unmet) || !strings.Contains(err.Error(), name) {
			t.Errorf("run: got %v, want a RequirementsError that names %s", err, name)
		}
		if _, err := os.Stat(cfg.StateDir); err == nil || n.history() != "" {
			t.Errorf("%s: the machine was changed: %s", name, n.history())
		}
	}
	n.unmet = true
	expect("bpf file system")
	n.unmet, n.stale = false, true
	expect("program load")
}

func TestOneAgentAtATime(t *testing.T) {
	cfg, n := testConfig(t, "127.0.0.1:1"), newFakeNode()
	startAgent(t, cfg, n)
	if _, err := localClient(t, cfg).GetStatus(t.Context(), &agentv1.GetStatusRequest{}); err != nil {
		t.Fatal(err)
	}
	for name, second := range map[string]func() error{
		"run": func() error { return run(t.Context(), cfg, n.kernel(), slog.New(slog.DiscardHandler)) },
		"cleanup": func() error {
			_, err := Cleanup(t.Context(), cfg)
			return err
		},
	} {
		if err := second(); err == nil || !strings.Contains(err.Error(), "is running") || !strings.Contains(err.Error(), "pid") {
			t.Errorf("%s beside an agent: got %v, want an error that names its pid", name, err)
		}
	}
}
