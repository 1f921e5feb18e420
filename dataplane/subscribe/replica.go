package subscribe

import (
	"errors"
	"fmt"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/pack"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

var (
	errWrongContent = errors.New("the content id is not the announced one")
	errWrongBase    = errors.New("the changes are not from the revision that was completed last")
	errProtocol     = errors.New("the server does not keep to the protocol")
)

// replica is the agent's copy of what the server sends on one stream.
type replica struct {
	base    *ruleset.RuleSet // after the last `complete` that was taken in
	reached uint64           // the revision of the last `complete`, taken in or not
	fresh   bool             // since the last `reset` none was here: what follows is from nothing
	pending []*agentv1.SyncResponse

	storeID  string
	revision uint64
	id       []byte
	begun    bool // the first response was here
	lost     bool // the copy is wrong: nothing counts up to the next `reset`
	whole    bool // since the last `reset` nothing was complete
}

// newReplica begins with what the hello said that the agent holds; nil for nothing.
func newReplica(held *enforce.Revision) *replica {
	if held == nil {
		return &replica{base: &ruleset.RuleSet{}}
	}
	return &replica{base: held.Rules, reached: held.Number, storeID: held.StoreID, revision: held.Number, id: held.ID[:]}
}

// fault is a revision that could not be taken in.
type fault struct {
	revision uint64
	err      error
	resync   bool // the copy is wrong
}

func (f *fault) Error() string { return fmt.Sprintf("take in revision %d: %v", f.revision, f.err) }

func (f *fault) Unwrap() error { return f.err }

// take reads one response. It returns the revision that is complete with it, nil when none is; a
// *fault, after which the replica goes on; or another error, after which the stream is of no use.
func (r *replica) take(response *agentv1.SyncResponse) (*enforce.Revision, error) {
	if err := r.begin(response); err != nil {
		return nil, err
	}
	if response.GetReset_() {
		r.base, r.pending, r.lost, r.whole, r.fresh = &ruleset.RuleSet{}, nil, false, true, true
	}
	if response.GetStoreId() != "" {
		r.storeID = response.GetStoreId()
	}
	if response.GetRevision() != 0 {
		r.revision = response.GetRevision()
	}
	if len(response.GetRuleSetId()) != 0 {
		r.id = response.GetRuleSetId()
	}
	if r.lost {
		return nil, nil
	}
	r.pending = append(r.pending, response)
	if !response.GetComplete() {
		return nil, nil
	}
	if err := r.follow(response.GetBaseRevisions()); err != nil {
		return nil, err
	}
	return r.complete()
}

// follow holds what a `complete` says that its changes are from against what was completed before: nothing, of servers of
// earlier releases and behind a `reset`.
func (r *replica) follow(bases []uint64) error {
	from, fresh := r.reached, r.fresh
	r.reached, r.fresh = r.revision, false
	if len(bases) == 0 || fresh || bases[0] == from {
		return nil
	}
	f := r.lose(fmt.Errorf("%w: they are from %d, the last was %d", errWrongBase, bases[0], from))
	f.resync = true
	return f
}

// begin holds the first response to the protocol.
func (r *replica) begin(response *agentv1.SyncResponse) error {
	if r.begun {
		return nil
	}
	r.begun = true
	switch {
	case response.GetReset_():
		return nil
	case !response.GetResumed():
		return fmt.Errorf("%w: its first response says neither resumed nor reset", errProtocol)
	case response.GetStoreId() != "" && response.GetStoreId() != r.storeID:
		return fmt.Errorf("%w: it resumes from another store", errProtocol)
	}
	return nil
}

func (r *replica) complete() (*enforce.Revision, error) {
	changes, err := r.changes()
	if err != nil {
		return nil, r.lose(fmt.Errorf("%w: %w", errWrongContent, err))
	}
	rules, err := r.base.With(changes)
	if err != nil {
		// Kept pending: a later change may replace the policy that this agent cannot read.
		return nil, &fault{revision: r.revision, err: err}
	}
	revision, err := newRevision(r.storeID, r.revision, r.id, rules)
	if err != nil {
		return nil, r.lose(err)
	}
	r.base, r.pending, r.whole = rules, nil, false
	return revision, nil
}

// lose gives the copy up. A whole rule set that comes out wrong would do so again at once: it is not asked for.
func (r *replica) lose(err error) *fault {
	r.lost, r.pending = true, nil
	return &fault{revision: r.revision, err: err, resync: !r.whole}
}

// changes returns the pending changes, of one policy only the last.
func (r *replica) changes() ([]*agentv1.RuleSetChange, error) {
	last := map[string]int{}
	var changes []*agentv1.RuleSetChange
	for _, response := range r.pending {
		unpacked, err := pack.Unpack(response.GetChanges())
		if err != nil {
			return nil, err //nolint:wrapcheck // says what it read
		}
		for _, change := range unpacked {
			name := change.GetPutPolicy().GetName() + change.GetDeletePolicy()
			if at, again := last[name]; again && name != "" {
				changes[at] = change
				continue
			}
			last[name] = len(changes)
			changes = append(changes, change)
		}
	}
	return changes, nil
}
