package subscribe_test

import (
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/subscribe"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func idle() reporter { return reporter{make(chan uint64, 100)} }

func TestSnapshotInPiecesThenChanges(t *testing.T) {
	s := startServer(t)
	a := startAgent(t, nil, idle(), s.address)
	st, hello := s.accept(t)
	if hello.GetNode() != "lab" || hello.GetRevision() != 0 || hello.GetStoreId() != "" {
		t.Errorf("hello %v, want node lab that holds nothing", hello)
	}
	whole := snapshot(rules(3), 5)
	for i, change := range whole.GetChanges() {
		st.send(&agentv1.SyncResponse{StoreId: storeID, Reset_: i == 0, Changes: []*agentv1.RuleSetChange{change}})
	}
	if applied, _ := a.maps.Applied(); len(applied.Policies) > 0 {
		t.Error("a rule set that is not complete is in force")
	}
	whole.Reset_, whole.Changes = false, nil
	st.send(whole)
	st.wantAck(5, rules(3))
	st.send(update(rules(3), rules(2), 6))
	st.wantAck(6, rules(2))
	if applied, _ := a.maps.Applied(); applied.ID() != rules(2).ID() {
		t.Errorf("in force: %v, want two policies", applied)
	}
}

func TestResume(t *testing.T) {
	s := startServer(t)
	startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
	st.end <- status.Error(codes.Unavailable, "stopping")

	st, hello := s.accept(t)
	id := rules(1).ID()
	if hello.GetStoreId() != storeID || hello.GetRevision() != 5 || string(hello.GetRuleSetId()) != string(id[:]) {
		t.Errorf("second hello %v, want one that holds revision 5", hello)
	}
	st.send(&agentv1.SyncResponse{StoreId: storeID, Resumed: true})
	st.send(update(rules(1), rules(2), 6))
	st.wantAck(6, rules(2))
}

func TestSavedRuleSetIsHeld(t *testing.T) {
	s := startServer(t)
	startAgent(t, &enforce.Revision{StoreID: storeID, Number: 5, Rules: rules(1), ID: rules(1).ID()}, idle(), s.address)
	st, hello := s.accept(t)
	if hello.GetRevision() != 5 {
		t.Errorf("hello %v, want revision 5", hello)
	}
	unchanged := update(rules(1), rules(1), 9)
	unchanged.Resumed = true
	st.send(unchanged)
	st.wantAck(9, rules(1))
}

func TestResetAfterAChangeOfStores(t *testing.T) {
	s := startServer(t)
	startAgent(t, &enforce.Revision{StoreID: "another", Number: 500, Rules: rules(3), ID: rules(3).ID()}, idle(), s.address)
	st, _ := s.accept(t)
	st.send(snapshot(rules(1), 2))
	st.wantAck(2, rules(1))
}

func TestWrongContentIsResynced(t *testing.T) {
	s := startServer(t)
	startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
	st.send(update(rules(2), rules(3), 6)) // lacks the second policy
	st.wantNack(6, true)
	st.send(update(rules(3), rules(2), 7)) // was under way
	st.send(snapshot(rules(2), 7))
	st.wantAck(7, rules(2))
}

func TestWholeRuleSetOfWrongContentEndsTheStream(t *testing.T) {
	s := startServer(t)
	a := startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	wrong := snapshot(rules(1), 5)
	id := rules(2).ID()
	wrong.RuleSetId = id[:]
	st.send(wrong)
	st.wantNack(5, false)
	s.accept(t)
	if state, _ := a.reconciler.State(); state.InForce != nil {
		t.Errorf("in force: %v, want nothing", state.InForce)
	}
}

func TestRefusedRevisionLeavesTheStream(t *testing.T) {
	s := startServer(t)
	startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
	st.send(update(rules(1), rules(11), 6)) // the fake holds 10 patterns
	st.wantNack(6, false)
	st.send(update(rules(11), rules(4), 7))
	st.wantAck(7, rules(4))
}

func TestUnreadablePolicyIsRefusedUntilReplaced(t *testing.T) {
	s := startServer(t)
	startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
	unreadable := update(rules(1), rules(2), 6)
	unreadable.GetChanges()[0].GetPutPolicy().GetRules()[0].Domains = []string{"a..b"}
	st.send(unreadable)
	st.wantNack(6, false)
	st.send(update(rules(1), rules(2), 7))
	st.wantAck(7, rules(2))
}

func TestNextServerIsTried(t *testing.T) {
	s := startServer(t)
	a := startAgent(t, nil, idle(), "127.0.0.1:1", s.address)
	st, _ := s.accept(t)
	st.send(snapshot(rules(1), 1))
	st.wantAck(1, rules(1))
	if connection, _ := a.Connection(); connection.Server != s.address {
		t.Errorf("connected to %q, want %q", connection.Server, s.address)
	}
	var permitted []netip.AddrPort
	for len(a.permitted) > 0 {
		permitted = <-a.permitted
	}
	if len(permitted) != 2 || permitted[0] != netip.MustParseAddrPort("127.0.0.1:1") {
		t.Errorf("permitted %v, want both servers", permitted)
	}
}

func TestAcknowledgedBatchesReachTheReporter(t *testing.T) {
	s := startServer(t)
	r := idle()
	startAgent(t, nil, r, s.address)
	st, _ := s.accept(t)
	st.send(snapshot(rules(1), 1))
	st.send(&agentv1.SyncResponse{AcknowledgedBatch: 3})
	select {
	case batch := <-r.acknowledged:
		if batch != 3 {
			t.Errorf("acknowledged %d, want 3", batch)
		}
	case <-time.After(patient):
		t.Error("nothing acknowledged")
	}
}

func TestDrainedAgentComesBack(t *testing.T) {
	s := startServer(t)
	startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	drain := snapshot(&ruleset.RuleSet{}, 1)
	drain.Drain = durationpb.New(time.Millisecond)
	st.send(drain)
	s.accept(t)
}

// A server that stops says where to go, and the node is there without the pause that follows a failure, with what it
// holds.
func TestNodeGoesWhereItIsTold(t *testing.T) {
	servers := map[string]*server{}
	var addresses []string
	for range 3 {
		s := startServer(t)
		servers[s.address] = s
		addresses = append(addresses, s.address)
	}
	order := subscribe.Order("lab", addresses)
	a := startAgent(t, nil, idle(), addresses...)
	st, _ := servers[order[0]].accept(t)
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
	st.send(&agentv1.SyncResponse{Drain: durationpb.New(time.Millisecond), DrainServers: []string{"192.0.2.1:1", order[2]}})
	st, hello := servers[order[2]].accept(t)
	if hello.GetRevision() != 5 {
		t.Errorf("hello %v, want revision 5", hello)
	}
	st.send(&agentv1.SyncResponse{StoreId: storeID, Resumed: true})
	if applied, _ := a.maps.Applied(); applied.ID() != rules(1).ID() {
		t.Errorf("in force: %v", applied)
	}
	if got, want := a.Ended(), (subscribe.Ended{Asked: 1, AtOnce: 1}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// refusal ends a stream with a hint.
func refusal(t *testing.T, again time.Duration) error {
	t.Helper()
	s, err := status.New(codes.Unavailable, "not now").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(again)})
	if err != nil {
		t.Fatal(err)
	}
	return s.Err()
}

// A server that says when to come again is come to no sooner, whether it refuses, ends a stream, or asks to leave.
func TestServerIsLeftAloneForAsLongAsItSays(t *testing.T) {
	const again = 700 * time.Millisecond // well above what the first failures wait
	s := startServer(t)
	a := startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	refused := time.Now()
	st.end <- refusal(t, again)
	st, _ = s.accept(t)
	if waited := time.Since(refused); waited < again {
		t.Errorf("back after %v", waited)
	}
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
	refused = time.Now()
	st.end <- refusal(t, again)
	st, hello := s.accept(t)
	if waited := time.Since(refused); waited < again || hello.GetRevision() != 5 {
		t.Errorf("back after %v, with %v", waited, hello)
	}
	asked := time.Now()
	st.send(&agentv1.SyncResponse{StoreId: storeID, Resumed: true, Drain: durationpb.New(time.Millisecond), RetryAfter: durationpb.New(again)})
	s.accept(t)
	if waited := time.Since(asked); waited < again {
		t.Errorf("back after %v, when it was asked to leave", waited)
	}
	if got, want := a.Ended(), (subscribe.Ended{Asked: 1, Lost: 1, Failed: 1, Hints: 3}); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// What one server says is no matter of the others.
func TestOthersAreGoneToMeanwhile(t *testing.T) {
	one, two := startServer(t), startServer(t)
	first, second := one, two
	if subscribe.Order("lab", []string{one.address, two.address})[0] == two.address {
		first, second = two, one
	}
	startAgent(t, nil, idle(), one.address, two.address)
	st, _ := first.accept(t)
	st.end <- refusal(t, time.Minute)
	// It fails again and again, and the first is not tried.
	for range 3 {
		st, _ = second.accept(t)
		st.end <- status.Error(codes.Unavailable, "away")
	}
	st, _ = second.accept(t)
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
}

// Changes from another revision than the one that was completed last say that something was missed, though what comes
// out may be what was announced.
func TestChangesFromElsewhereAreResynced(t *testing.T) {
	s := startServer(t)
	startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
	right := update(rules(1), rules(2), 6)
	right.BaseRevisions = []uint64{5}
	st.send(right)
	st.wantAck(6, rules(2))
	wrong := update(rules(2), rules(3), 8)
	wrong.BaseRevisions = []uint64{7}
	st.send(wrong)
	st.wantNack(8, true)
	st.send(snapshot(rules(3), 8))
	st.wantAck(8, rules(3))
	// One that the agent could not read was completed all the same.
	unreadable := update(rules(3), rules(4), 9)
	unreadable.BaseRevisions = []uint64{8}
	unreadable.GetChanges()[0].GetPutPolicy().GetRules()[0].Domains = []string{"a..b"}
	st.send(unreadable)
	st.wantNack(9, false)
	next := update(rules(3), rules(4), 10)
	next.BaseRevisions = []uint64{9}
	st.send(next)
	st.wantAck(10, rules(4))
}

func TestServerThatNeitherResumesNorResetsIsLeft(t *testing.T) {
	s := startServer(t)
	a := startAgent(t, nil, idle(), s.address)
	st, _ := s.accept(t)
	st.send(update(&ruleset.RuleSet{}, rules(1), 1))
	s.accept(t)
	if connection, _ := a.Connection(); connection.Err == nil {
		t.Error("the connection has no error")
	}
}

// A node whose own server was away goes back to it, with what it holds.
func TestNodeReturnsToItsOwnServer(t *testing.T) {
	one, two := startServer(t), startServer(t)
	home, other := one, two
	if subscribe.Order("lab", []string{one.address, two.address})[0] == two.address {
		home, other = two, one
	}
	home.refuse.Store(true)
	a := startAgent(t, nil, idle(), one.address, two.address)
	st, _ := other.accept(t)
	st.send(snapshot(rules(1), 5))
	st.wantAck(5, rules(1))
	home.refuse.Store(false)
	st, hello := home.accept(t)
	if hello.GetRevision() != 5 {
		t.Errorf("hello %v, want revision 5", hello)
	}
	st.send(&agentv1.SyncResponse{StoreId: storeID, Resumed: true})
	st.send(update(rules(1), rules(2), 6))
	st.wantAck(6, rules(2))
	if connection, _ := a.Connection(); connection.Server != home.address {
		t.Errorf("connected to %s, want the node's own %s", connection.Server, home.address)
	}
}

func TestEmptyOtherStoreTakesNothing(t *testing.T) {
	s := startServer(t)
	held := &enforce.Revision{StoreID: "another", Number: 500, Rules: rules(3), ID: rules(3).ID()}
	a := startAgent(t, held, idle(), s.address)
	inForce := func() *enforce.Revision {
		state, _ := a.reconciler.State()
		return state.InForce
	}
	for range 2 { // each time that it connects
		st, _ := s.accept(t)
		st.send(snapshot(&ruleset.RuleSet{}, 1))
		st.wantNack(1, false)
		if inForce().Rules.ID() != rules(3).ID() {
			t.Fatal("the rule set is gone")
		}
		if connection, _ := a.Connection(); connection.Refused == nil {
			t.Error("nobody is told")
		}
		st.end <- status.Error(codes.Unavailable, "stopping")
	}
	st, _ := s.accept(t)
	st.send(snapshot(&ruleset.RuleSet{}, 1))
	st.wantNack(1, false)
	// A policy for the node makes it the node's store. From then on it may take that away too.
	st.send(update(&ruleset.RuleSet{}, rules(1), 2))
	st.wantAck(2, rules(1))
	st.send(update(rules(1), &ruleset.RuleSet{}, 3))
	st.wantAck(3, &ruleset.RuleSet{})
	if connection, _ := a.Connection(); connection.Refused != nil {
		t.Errorf("still refused: %v", connection.Refused)
	}
}

// A rule set of the same store may be empty.
func TestLastPolicyIsTakenAway(t *testing.T) {
	s := startServer(t)
	startAgent(t, &enforce.Revision{StoreID: storeID, Number: 5, Rules: rules(1), ID: rules(1).ID()}, idle(), s.address)
	st, _ := s.accept(t)
	st.send(snapshot(&ruleset.RuleSet{}, 6))
	st.wantAck(6, &ruleset.RuleSet{})
}
