package dataplane

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/nameward/nameward/api/domain"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/conntrack"
	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/observe"
	"github.com/nameward/nameward/dataplane/preflight"
)

// fakeNode is a machine whose kernel outlives agents.
type fakeNode struct {
	maps  *enforcetest.Maps
	hooks *enforcetest.Hooks
	unmet bool // before the start
	stale bool // the kernel takes no programs

	mu      sync.Mutex // guards all below
	fault   error
	way     []Requirement
	order   []string
	servers []netip.AddrPort
}

func newFakeNode() *fakeNode {
	return &fakeNode{maps: enforcetest.NewMaps(10), hooks: enforcetest.NewHooks()}
}

func (n *fakeNode) did(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.order = append(n.order, what)
}

func (n *fakeNode) history() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Join(n.order, " ")
}

// fakeDatapath is the maps of a node, with one answer that was learned.
type fakeDatapath struct {
	*fakeNode
	table *observe.Table
}

func (d fakeDatapath) Apply(ctx context.Context, rules *ruleset.RuleSet) error {
	d.did("apply")
	return d.maps.Apply(ctx, rules)
}

func (d fakeDatapath) SetEndpoints(_, servers []netip.AddrPort) error {
	d.did("endpoints")
	d.mu.Lock()
	defer d.mu.Unlock()
	d.servers = servers
	return nil
}

func (d fakeDatapath) Counters() (map[string]uint64, error) {
	return map[string]uint64{"dns_responses_learned": 3, "verdicts_deny": 2, "events_lost": 1}, nil
}

func (d fakeDatapath) HoldsNone() (bool, error) {
	_, times := d.maps.Applied()
	return times == 0, nil
}

func (d fakeDatapath) Programs() datapath.Programs { return datapath.Programs{} }

func (d fakeDatapath) RetirePrograms() error {
	d.did("retire")
	return nil
}

func (d fakeDatapath) Run(ctx context.Context) error {
	name, err := domain.ParseName("www.example.com")
	if err != nil {
		return err
	}
	d.table.Record(observe.Answer{
		Names: []domain.Name{name}, Addresses: []observe.Address{{Address: netip.MustParseAddr("192.0.2.1"), Names: 1}},
		LearnedAt: time.Now(), ExpiresAt: time.Now().Add(time.Minute),
	})
	<-ctx.Done()
	return nil
}

func (d fakeDatapath) Fault() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fault
}

func (n *fakeNode) inTheWay() []Requirement {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.way
}

func (d fakeDatapath) Close() error { return nil }

func (d fakeDatapath) Holds(rules *ruleset.RuleSet) (bool, error) { return d.maps.Holds(rules) }

type fakeConntrack struct{ *enforcetest.Conntrack }

type fakeFilter struct{ *fakeNode }

func (f fakeFilter) Ensure(ctx context.Context, mending func([]string)) ([]string, error) {
	f.did("hooks")
	return f.hooks.Ensure(ctx, mending)
}

func (n *fakeNode) kernel() kernel {
	return kernel{
		probe: func(context.Context, Config) []Requirement {
			if n.unmet {
				return []Requirement{preflight.Fail("bpf file system", "not there", "mount it")}
			}
			return []Requirement{preflight.Found("bpf file system", "there")}
		},
		conflicts: func(context.Context, Config) []Requirement { return n.inTheWay() },
		probeAll: func(context.Context, Config) []Requirement {
			if n.stale {
				return []Requirement{preflight.Fail("program load", "refused", "run a newer kernel")}
			}
			return []Requirement{preflight.Found("program load", "taken")}
		},
		openMaps: func(cfg datapath.Config, table *observe.Table, _ *observe.Flows) (kernelMaps, error) {
			if n.stale {
				err := os.WriteFile(filepath.Join(cfg.StateDir, "journal"), nil, 0o600)
				return nil, errors.Join(errors.New("load programs"), err)
			}
			return fakeDatapath{n, table}, nil
		},
		openHooks: func(context.Context, netfilter.Config) (kernelHooks, error) { return fakeFilter{n}, nil },
		inUse:     func(context.Context) (netfilter.InUse, error) { return netfilter.InUse{}, nil },
		conntrack: func(conntrack.Config) kernelConntrack { return fakeConntrack{enforcetest.NewConntrack()} },
	}
}

// syncServer answers each agent with one rule set, and keeps what it is told.
type syncServer struct {
	agentv1.UnimplementedSyncServiceServer
	rules    *ruleset.RuleSet
	requests chan *agentv1.SyncRequest
	seen     []*agentv1.SyncRequest // by await
}

func (s *syncServer) Sync(stream grpc.BidiStreamingServer[agentv1.SyncRequest, agentv1.SyncResponse]) error {
	id := s.rules.ID()
	response := &agentv1.SyncResponse{
		StoreId: "store", Revision: 7, RuleSetId: id[:], Reset_: true, Complete: true,
		Changes: (&ruleset.RuleSet{}).Changes(s.rules),
	}
	if err := stream.Send(response); err != nil {
		return err
	}
	for {
		request, err := stream.Recv()
		if err != nil {
			return nil
		}
		s.requests <- request
	}
}

func startServer(t *testing.T, rules *ruleset.RuleSet) (string, *syncServer) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &syncServer{rules: rules, requests: make(chan *agentv1.SyncRequest, 100)}
	server := grpc.NewServer()
	agentv1.RegisterSyncServiceServer(server, s)
	done := make(chan error)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return listener.Addr().String(), s
}

// await waits until a request was as wanted, now or before.
func (s *syncServer) await(t *testing.T, what string, wanted func(*agentv1.SyncRequest) bool) {
	t.Helper()
	timeout := time.After(patient)
	for !slices.ContainsFunc(s.seen, wanted) {
		select {
		case request := <-s.requests:
			s.seen = append(s.seen, request)
		case <-timeout:
			t.Fatalf("no %s", what)
		}
	}
}
