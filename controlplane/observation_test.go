package controlplane_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func TestMappingsAreListedWatchedAndEnd(t *testing.T) {
	s := start(t, t.TempDir())
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	defer a.leave()
	a.complete()
	a.observe(observed("www.example.com", "192.0.2.1", time.Hour, "cdn.example.net"), observed("www.example.org", "2001:db8::1", time.Hour))

	list := func(filter *namewardv1.MappingFilter) string {
		t.Helper()
		var found []string
		request := &namewardv1.ListMappingsRequest{Filter: filter, PageSize: 1}
		for {
			page, err := s.mappings.ListMappings(t.Context(), request)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.GetMappings() {
				found = append(found, m.GetDomain()+" "+m.GetNode())
			}
			if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
				return strings.Join(found, ", ")
			}
		}
	}
	for _, test := range []struct {
		filter *namewardv1.MappingFilter
		want   string
	}{
		{nil, "www.example.com nodes/n, www.example.org nodes/n"},
		{&namewardv1.MappingFilter{Domain: "*.example.net"}, "www.example.com nodes/n"},
		{&namewardv1.MappingFilter{Address: "2001:db8::/32"}, "www.example.org nodes/n"},
		{&namewardv1.MappingFilter{Node: "nodes/an-impostor"}, ""},
	} {
		if got := list(test.filter); got != test.want {
			t.Errorf("filter %v: got %q, want %q", test.filter, got, test.want)
		}
	}
	// Behind a page that went by the node's mappings there is nothing of a list of all: better a fault than a list
	// that ends too soon.
	request := &namewardv1.ListMappingsRequest{Filter: &namewardv1.MappingFilter{Node: "nodes/n"}, PageSize: 1}
	page, err := s.mappings.ListMappings(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	request.Filter, request.PageToken = nil, page.GetNextPageToken()
	_, err = s.mappings.ListMappings(t.Context(), request)
	wantFields(t, err, "page_token")

	_, err = s.mappings.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{Filter: &namewardv1.MappingFilter{Address: "ten"}})
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "filter.address") {
		t.Errorf("a bad filter got %v", err)
	}

	watch, err := s.mappings.WatchMappings(t.Context(), &namewardv1.WatchMappingsRequest{Filter: &namewardv1.MappingFilter{Domain: "soon.example.com"}})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || !first.GetSynced() {
		t.Fatalf("first of the watch: %v, %v", first, err)
	}
	soon := observed("soon.example.com", "192.0.2.2", 200*time.Millisecond)
	a.observe(soon)
	for _, want := range []namewardv1.WatchMappingsResponse_Change{namewardv1.WatchMappingsResponse_PUT, namewardv1.WatchMappingsResponse_DELETE} {
		if got, err := watch.Recv(); err != nil || got.GetChange() != want || got.GetMapping().GetAddress() != "192.0.2.2" {
			t.Errorf("watch: %v, %v, want %v", got, err, want)
		}
	}
	if late := time.Since(soon.GetExpireTime().AsTime()); late < 0 {
		t.Errorf("ended %v early", -late)
	}
	a.leave()
	a.connect(s.connection)
	s.stop()
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("at the stop the watch got %v", err)
	}
}

func TestExplainConnection(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("web", "web", "*.example.net")
	a := newAgent(t, "n", map[string]string{"role": "web"})
	a.connect(s.connection)
	defer a.leave()
	a.completeWith(1)
	a.observe(observed("www.example.com", "192.0.2.1", time.Hour, "cdn.example.net"))
	web := map[string]string{"role": "web"}
	tests := []struct {
		fact    string
		request *namewardv1.ExplainConnectionRequest
		want    namewardv1.Verdict
		policy  string
	}{
		{"an alias that a pattern matches opens the address", &namewardv1.ExplainConnectionRequest{Node: "nodes/n", Destination: "192.0.2.1", Port: 443}, namewardv1.Verdict_ALLOW, "policies/web"},
		{"and the name", &namewardv1.ExplainConnectionRequest{Node: "nodes/n", Destination: "www.example.com", Port: 443}, namewardv1.Verdict_ALLOW, "policies/web"},
		{"another address stays closed", &namewardv1.ExplainConnectionRequest{Node: "nodes/n", Destination: "192.0.2.2"}, namewardv1.Verdict_DENY, ""},
		{"labels stand for a node", &namewardv1.ExplainConnectionRequest{Labels: web, Destination: "x.example.net"}, namewardv1.Verdict_ALLOW, "policies/web"},
		{"labels have no mappings", &namewardv1.ExplainConnectionRequest{Labels: web, Destination: "www.example.com"}, namewardv1.Verdict_DENY, ""},
		{"nothing selects the node", &namewardv1.ExplainConnectionRequest{Labels: map[string]string{"role": "db"}, Destination: "192.0.2.2"}, namewardv1.Verdict_ALLOW, ""},
		{"nothing selects the workload", &namewardv1.ExplainConnectionRequest{Node: "nodes/n", Workload: "10.1.0.7", Destination: "192.0.2.2"}, namewardv1.Verdict_ALLOW, ""},
	}
	for _, test := range tests {
		t.Run(test.fact, func(t *testing.T) {
			got, err := s.nodes.ExplainConnection(t.Context(), test.request)
			if err != nil || got.GetVerdict() != test.want || got.GetPolicy() != test.policy || got.GetReason() == "" {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	for _, request := range []*namewardv1.ExplainConnectionRequest{
		{Node: "nodes/nobody", Workload: "uid:x", Interface: "eth0", Destination: "a..b", Protocol: 9, Port: 70000, SourcePort: 70000},
		{Node: "lab", Workload: "uid:x", Interface: "eth0", Protocol: namewardv1.Protocol_ICMP, Port: 8, SourcePort: 9},
	} {
		_, err := s.nodes.ExplainConnection(t.Context(), request)
		for _, field := range []string{"node", "workload", "interface", "destination", "protocol", "port", "source_port"} {
			faulty := field != "protocol" || request.GetProtocol() == 9
			if strings.Contains(fmt.Sprint(status.Convert(err).Details()), "field:\""+field+"\"") != faulty {
				t.Errorf("%v: a fault of %s: want %v", err, field, faulty)
			}
		}
	}
	for field, request := range map[string]*namewardv1.ExplainConnectionRequest{
		"node":   {Destination: "a.example"},
		"labels": {Node: "nodes/n", Labels: web, Destination: "a.example"},
	} {
		_, err := s.nodes.ExplainConnection(t.Context(), request)
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(fmt.Sprint(status.Convert(err).Details()), "field:\""+field+"\"") {
			t.Errorf("%v got %v, want a fault of %s", request, err, field)
		}
	}
}

// TestNodesReportWhatTheyAlwaysAllow: the node shows it, explanations know it, and what cannot be read is
// left out. The resolvers outlive the server.
func TestNodesReportWhatTheyAlwaysAllow(t *testing.T) {
	dir := t.TempDir()
	s := start(t, dir)
	s.put("web", "web", "*.example.net")
	a := newAgent(t, "n", map[string]string{"role": "web"})
	a.open(s.connection)
	a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Hello{Hello: &agentv1.Hello{
		Node: a.node, Labels: a.labels, InstanceId: a.instance, TrustedResolvers: []string{"192.0.2.53:53", "nobody", "[2001:db8::53]:5353"},
	}}})
	a.completeWith(1)
	a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: &agentv1.StatusReport{
		PolicyServers: []string{"192.0.2.54:7443"}, Addresses: []string{"10.1.0.1", "10.9.0.0/16", "x"}, MoreAddresses: true,
	}}})
	resolvers := []string{"192.0.2.53:53", "[2001:db8::53]:5353"}
	got := s.status("n", func(st *namewardv1.NodeStatus) bool { return len(st.GetAddresses()) > 0 })
	if !slices.Equal(got.GetTrustedResolvers(), resolvers) || !slices.Equal(got.GetPolicyServers(), []string{"192.0.2.54:7443"}) ||
		!slices.Equal(got.GetAddresses(), []string{"10.1.0.1", "10.9.0.0/16"}) || !got.GetMoreAddresses() {
		t.Errorf("status %v", got)
	}
	for destination, want := range map[string]namewardv1.ExplainConnectionResponse_AlwaysAllowed{
		"2001:db8::53": namewardv1.ExplainConnectionResponse_TRUSTED_RESOLVER,
		"10.9.7.7":     namewardv1.ExplainConnectionResponse_NODE_ADDRESS,
		"10.1.0.2":     namewardv1.ExplainConnectionResponse_ALWAYS_ALLOWED_UNSPECIFIED,
	} {
		answer, err := s.nodes.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{
			Node: "nodes/n", Destination: destination, Protocol: namewardv1.Protocol_UDP, Port: 5353,
		})
		if err != nil || answer.GetAlwaysAllowed() != want || (answer.GetVerdict() == namewardv1.Verdict_ALLOW) != (want != 0) {
			t.Errorf("%s: %v, %v, want %v", destination, answer, err, want)
		}
	}
	a.leave()
	s.stop()
	s = start(t, dir)
	node, err := s.nodes.GetNode(t.Context(), &namewardv1.GetNodeRequest{Name: "nodes/n"})
	if err != nil || !slices.Equal(node.GetStatus().GetTrustedResolvers(), resolvers) || len(node.GetStatus().GetAddresses()) > 0 {
		t.Errorf("after a restart: %v, %v", node, err)
	}
}

// TestExplanationsSayWhatTheNodeLacks: they are about what a node should have, and say where it has not.
func TestExplanationsSayWhatTheNodeLacks(t *testing.T) {
	s := start(t, t.TempDir())
	s.put("web", "web", "*.example.net")
	a := newAgent(t, "n", map[string]string{"role": "web"})
	expect := func(note string) {
		t.Helper()
		answer, err := s.nodes.ExplainConnection(t.Context(), &namewardv1.ExplainConnectionRequest{Node: "nodes/n", Destination: "192.0.2.1", Port: 443})
		notes := strings.Join(answer.GetNotes(), "\n")
		if err != nil || note == "" && strings.Contains(notes, "rules of revision") || !strings.Contains(notes, note) {
			t.Errorf("notes %q, %v, want one that says %q", notes, err, note)
		}
	}
	a.connect(s.connection)
	a.completeWith(1)
	expect("which rules the node has in force is not known")
	expect("its trusted resolvers, policy servers and addresses")
	a.ack()
	first := s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetAppliedRevision() == a.revision }).GetAppliedRevision()
	expect("")
	s.put("more", "web", "a.example.org")
	expect(fmt.Sprintf("the node has the rules of revision %d in force, and will have those of revision ", first))
	a.complete()
	a.nack("no room", false)
	s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetLastError() != "" })
	expect(fmt.Sprintf("the rules of revision %d are in force: no room", first))
	a.ack()
	s.status("n", func(st *namewardv1.NodeStatus) bool { return st.GetLastError() == "" })
	expect("")
	a.leave()
	s.status("n", func(st *namewardv1.NodeStatus) bool { return !st.GetConnected() })
	expect("the node is not connected")
}

// A node whose clock is wrong by hours, or was just set, is told of with the server's times.
func TestMappingsOfANodeWithAWrongClock(t *testing.T) {
	s := start(t, t.TempDir())
	a := newAgent(t, "n", nil)
	a.connect(s.connection)
	defer a.leave()
	a.complete()
	tell := func(name string, behind time.Duration) {
		t.Helper()
		m := observed(name, "192.0.2.1", time.Minute)
		now := time.Now().Add(-behind)
		m.ExpireTime, m.FirstSeenTime, m.LastSeenTime = timestamppb.New(now.Add(time.Minute)), timestamppb.New(now), timestamppb.New(now)
		a.tell(&agentv1.Observations{SentTime: timestamppb.New(now), Mappings: []*namewardv1.Mapping{m}})
	}
	degraded := func() string {
		t.Helper()
		a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Status{Status: &agentv1.StatusReport{}}})
		tell("settled.example", 0) // taken in after the status
		n, err := s.nodes.GetNode(t.Context(), &namewardv1.GetNodeRequest{Name: "nodes/n"})
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(n.GetStatus().GetDegraded(), " ")
	}
	for _, test := range []struct {
		behind time.Duration
		fault  string
	}{
		{0, ""},
		{5 * time.Hour, "the node's clock is 5h0m0s behind"},
		{-5 * time.Hour, "the node's clock is 5h0m0s ahead of"},
	} {
		tell("www.example", test.behind)
		page, err := s.mappings.ListMappings(t.Context(), &namewardv1.ListMappingsRequest{Filter: &namewardv1.MappingFilter{Domain: "www.example"}})
		if err != nil || len(page.GetMappings()) != 1 {
			t.Fatalf("%v behind: got %v, %v, want the mapping", test.behind, page, err)
		}
		m := page.GetMappings()[0]
		if left := time.Until(m.GetExpireTime().AsTime()); left < 30*time.Second || left > time.Minute {
			t.Errorf("%v behind: it lives for %v, want a minute", test.behind, left)
		}
		if ago := time.Since(m.GetFirstSeenTime().AsTime()); ago < 0 || ago > 30*time.Second {
			t.Errorf("%v behind: it was seen %v ago, want now", test.behind, ago)
		}
		if fault := degraded(); !strings.Contains(fault, test.fault) || test.fault == "" && fault != "" {
			t.Errorf("%v behind: degraded %q, want %q", test.behind, fault, test.fault)
		}
	}
}
