package adminserver

import (
	"log/slog"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/policy"
)

// admin are the requests that operators send.
func admin() []proto.Message {
	return []proto.Message{
		&namewardv1.CreatePolicyRequest{}, &namewardv1.UpdatePolicyRequest{}, &namewardv1.DeletePolicyRequest{}, &namewardv1.ListPoliciesRequest{},
		&namewardv1.WatchPoliciesRequest{}, &namewardv1.CreateDomainSetRequest{}, &namewardv1.UpdateDomainSetRequest{}, &namewardv1.DeleteDomainSetRequest{},
		&namewardv1.AddDomainsRequest{}, &namewardv1.RemoveDomainsRequest{}, &namewardv1.ReplaceDomainsRequest{}, &namewardv1.ListDomainsRequest{},
		&namewardv1.ListDomainSetsRequest{}, &namewardv1.GetNodeRequest{}, &namewardv1.ListNodesRequest{}, &namewardv1.DeleteNodeRequest{},
		&namewardv1.GetRuleSetRequest{}, &namewardv1.ListMappingsRequest{}, &namewardv1.WatchMappingsRequest{}, &namewardv1.ListFlowEventsRequest{},
		&namewardv1.WatchFlowEventsRequest{}, &namewardv1.ListAuditEventsRequest{},
	}
}

// FuzzRequests reads each request of an operator as the interceptor does: nothing panics, and every fault names a field.
func FuzzRequests(f *testing.F) {
	requests := admin()
	for kind, text := range map[int]string{
		0: `{"policyId":"web","policy":{"workloads":[{"cidrs":["10.1.0.0/24"]},{"systemdUnit":"a.service"}],"rules":[{"action":"ALLOW","domains":["*.example.com"],"ports":[{"protocol":"TCP","port":443,"endPort":444}]}]}}`,
		1: `{"policy":{"name":"policies/web","mode":"AUDIT","rules":[{"action":"DENY","domains":["*.tracker.example"],"queryAction":"REFUSE"}]},"updateMask":"rules,nodeSelector.matchLabels"}`,
		6: `{"domainSet":{"name":"domainSets/a","domains":["bücher.example","*.*"]},"updateMask":"domains"}`,
		3: `{"pageToken":"AAAA","filter":{"domain":"a.example","mode":"ENFORCE"}}`, 17: `{"filter":{"domain":"*.example","address":"192.0.2.0/24","node":"nodes/a"},"pageToken":"x"}`,
		19: `{"filter":{"workload":"uid:0","policy":"policies/a","mode":"AUDIT"}}`, 21: `{"filter":{"since":"2026-01-01T00:00:00Z","outcome":"DENIED"}}`,
	} {
		request := proto.Clone(requests[kind])
		if err := protojson.Unmarshal([]byte(text), request); err != nil {
			f.Fatal(err)
		}
		wire, err := proto.Marshal(request)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(kind), wire) //nolint:gosec // few
	}
	validator, err := NewValidator(slog.New(slog.DiscardHandler))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, wire []byte) {
		request := proto.Clone(requests[int(kind)%len(requests)])
		if proto.Unmarshal(wire, request) != nil {
			return
		}
		before := proto.Clone(request)
		err := validator.check(request)
		if !proto.Equal(before, request) {
			t.Errorf("%T was changed", request)
		}
		if err != nil {
			if len(ruleset.FieldErrors(err)) == 0 {
				t.Errorf("%T: %v names no field", request, err)
			}
			_ = toStatus(slog.New(slog.DiscardHandler), err).Error()
			return
		}
		if create, ok := request.(*namewardv1.CreatePolicyRequest); ok {
			reread(t, create)
		}
	})
}

// reread parses a policy as its handler does: what is taken reads back as the same rules.
func reread(t *testing.T, request *namewardv1.CreatePolicyRequest) {
	message := policy.WithoutOutput(request.GetPolicy())
	message.Name = policy.Collection + request.GetPolicyId()
	parsed, err := policy.Parse(message)
	if err != nil {
		if len(ruleset.FieldErrors(err)) == 0 {
			t.Errorf("%v names no field", err)
		}
		return
	}
	again, err := policy.Parse(policy.Copy(parsed.Message))
	if err != nil {
		t.Fatalf("what was taken is refused when it is read back: %v", err)
	}
	if one, two := ruleset.New([]ruleset.Policy{parsed.Rules}).ID(), ruleset.New([]ruleset.Policy{again.Rules}).ID(); one != two {
		t.Errorf("reads back as another: %v", parsed.Message)
	}
}

// FuzzTokens reads tokens of every list and watch: what was not made here is refused as a fault of its field.
func FuzzTokens(f *testing.F) {
	policies, audit := &namewardv1.ListPoliciesRequest{}, &namewardv1.ListAuditEventsRequest{}
	mappings, flows := &namewardv1.ListMappingsRequest{}, &namewardv1.ListFlowEventsRequest{}
	for _, text := range []string{
		"", "AAAA", token.Page(policies, "policies/a"), resumeToken("store", 7), token.Page(audit, "1 2"),
		token.Page(mappings, "1 a.example b.example 192.0.2.1 n"), token.Page(flows, "x"),
	} {
		f.Add(text, "")
		f.Add("", strings.TrimSuffix(text, "A"))
	}
	f.Fuzz(func(t *testing.T, text, sealed string) {
		// Whoever knows how may seal what they like.
		texts := []string{text, token.Seal(resumeKind, sealed)}
		for _, list := range []token.List{policies, audit, mappings, flows} {
			texts = append(texts, token.Page(list, sealed))
		}
		for _, text := range texts {
			_, err1 := parsePageToken(&namewardv1.ListPoliciesRequest{PageToken: text})
			_, _, err2 := parseResumeToken(text)
			_, err3 := parseAuditPosition(&namewardv1.ListAuditEventsRequest{PageToken: text})
			_, err4 := parseCursor(&namewardv1.ListMappingsRequest{PageToken: text})
			_, err5 := parseFlowPosition(&namewardv1.ListFlowEventsRequest{PageToken: text})
			for _, err := range []error{err1, err2, err3, err4, err5} {
				if err != nil && len(ruleset.FieldErrors(err)) != 1 {
					t.Errorf("%q: %v names no field", text, err)
				}
			}
		}
	})
}
