package controlplane_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// patience is above the 20 seconds in which a dead connection is found out.
const patience = 30 * time.Second

// agent is a scripted agent: it keeps a copy of the rule set by the protocol, and says what the test wants.
type agent struct {
	t        testing.TB
	node     string
	instance string
	labels   map[string]string

	stream    grpc.BidiStreamingClient[agentv1.SyncRequest, agentv1.SyncResponse]
	cancel    context.CancelFunc
	responses chan *agentv1.SyncResponse
	ended     chan error

	storeID  string
	revision uint64
	id       []byte
	holds    *ruleset.RuleSet
	batch    uint64
}

func newAgent(t testing.TB, node string, labels map[string]string) *agent {
	return &agent{t: t, node: node, instance: "instance of " + node, labels: labels, holds: &ruleset.RuleSet{}}
}

// connect opens a stream and says hello.
func (a *agent) connect(connection *grpc.ClientConn) {
	a.t.Helper()
	a.open(connection)
	a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Hello{Hello: &agentv1.Hello{
		Node: a.node, Labels: a.labels, InstanceId: a.instance, AgentVersion: "1.2.3", Kernel: "6.18", IptablesBackend: "nft",
		StoreId: a.storeID, Revision: a.revision, RuleSetId: a.id,
	}}})
}

func (a *agent) open(connection *grpc.ClientConn) {
	a.t.Helper()
	ctx, cancel := context.WithCancel(a.t.Context())
	stream, err := agentv1.NewSyncServiceClient(connection).Sync(ctx)
	if err != nil {
		a.t.Fatal(err)
	}
	responses, ended := make(chan *agentv1.SyncResponse, 1000), make(chan error, 1)
	a.stream, a.cancel, a.responses, a.ended = stream, cancel, responses, ended
	go func() {
		for {
			response, err := stream.Recv()
			if err != nil {
				ended <- err
				return
			}
			responses <- response
		}
	}()
}

func (a *agent) send(request *agentv1.SyncRequest) {
	a.t.Helper()
	if err := a.stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
		a.t.Fatal(err)
	}
}

// leave ends the stream and waits until it has.
func (a *agent) leave() {
	a.t.Helper()
	a.cancel()
	a.end()
}

// end waits for the stream to end and returns the code.
func (a *agent) end() codes.Code {
	a.t.Helper()
	select {
	case err := <-a.ended:
		a.cancel()
		return status.Code(err)
	case <-time.After(patience):
		a.t.Fatal("the stream did not end")
		return codes.Unknown
	}
}

func (a *agent) next() *agentv1.SyncResponse {
	a.t.Helper()
	select {
	case response := <-a.responses:
		return response
	case err := <-a.ended:
		a.t.Fatalf("stream ended: %v", err)
	case <-time.After(patience):
		a.t.Fatal("nothing received")
	}
	return nil
}

// complete receives up to the next `complete` and applies the changes. It returns what was received.
func (a *agent) complete() []*agentv1.SyncResponse {
	a.t.Helper()
	var all []*agentv1.SyncResponse
	whole := false
	for {
		response := a.next()
		all = append(all, response)
		if response.GetReset_() {
			a.holds, whole = &ruleset.RuleSet{}, true
		}
		if response.GetStoreId() != "" {
			a.storeID = response.GetStoreId()
		}
		var err error
		if a.holds, err = a.holds.With(response.GetChanges()); err != nil {
			a.t.Fatal(err)
		}
		if !response.GetComplete() {
			continue
		}
		if bases := response.GetBaseRevisions(); whole && len(bases) > 0 || !whole && !slices.Equal(bases, []uint64{a.revision}) {
			a.t.Fatalf("from revisions %v to %d, whole is %v, and the agent has %d", bases, response.GetRevision(), whole, a.revision)
		}
		a.revision, a.id = response.GetRevision(), response.GetRuleSetId()
		if got, want := a.holds.ID().String(), ruleset.ID(a.id).String(); got != want {
			a.t.Fatalf("the changes lead to %s, %s was announced", got, want)
		}
		return all
	}
}

// completeWith receives until it holds so many policies: what was just put may be published once it has connected.
func (a *agent) completeWith(policies int) {
	a.t.Helper()
	for a.complete(); len(a.holds.Policies) < policies; a.complete() {
	}
}

func (a *agent) ack() {
	a.t.Helper()
	a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Ack{Ack: &agentv1.Ack{Revision: a.revision, RuleSetId: a.id}}})
}

func (a *agent) nack(text string, resync bool) {
	a.t.Helper()
	a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Nack{Nack: &agentv1.Nack{Revision: a.revision, Error: text, Resync: resync}}})
}

// observe sends a batch and waits until it is taken in.
func (a *agent) observe(mappings ...*namewardv1.Mapping) {
	a.t.Helper()
	a.tell(&agentv1.Observations{Mappings: mappings})
}

// tell sends observations as the next batch and waits until they are taken in.
func (a *agent) tell(observations *agentv1.Observations) {
	a.t.Helper()
	a.batch++
	observations.Batch = a.batch
	a.send(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Observations{Observations: observations}})
	for a.next().GetAcknowledgedBatch() < a.batch {
	}
}

func observed(domain, address string, ttl time.Duration, chain ...string) *namewardv1.Mapping {
	now := time.Now()
	return &namewardv1.Mapping{
		Domain: domain, Address: address, Chain: chain, Node: "nodes/an-impostor", Client: "10.1.0.7",
		FirstSeenTime: timestamppb.New(now), LastSeenTime: timestamppb.New(now), ExpireTime: timestamppb.New(now.Add(ttl)),
	}
}
