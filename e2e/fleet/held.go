package fleet

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/pack"
	"github.com/nameward/nameward/api/ruleset"
)

// held is what an agent was sent: a rule set, and the responses that have not been looked into.
type held struct {
	rules  *ruleset.RuleSet
	unread [][]byte
	// whole is how many of unread end with a whole revision.
	whole int
}

func (h *held) add(r *response) {
	h.unread = append(h.unread, r.raw)
	if r.complete {
		h.whole = len(h.unread)
	}
}

// forgetHalf drops a revision that broke off with its stream.
func (h *held) forgetHalf() { h.unread = h.unread[:h.whole] }

// catchUp looks into the responses.
func (h *held) catchUp() error {
	if h.rules == nil {
		h.rules = &ruleset.RuleSet{}
	}
	base := h.rules
	var changes []*agentv1.RuleSetChange
	for _, raw := range h.unread[:h.whole] {
		var response agentv1.SyncResponse
		if err := proto.Unmarshal(raw, &response); err != nil {
			return fmt.Errorf("read response: %w", err)
		}
		if response.GetReset_() {
			base, changes = &ruleset.RuleSet{}, nil
		}
		unpacked, err := pack.Unpack(response.GetChanges())
		if err != nil {
			return err //nolint:wrapcheck // says what it read
		}
		changes = append(changes, unpacked...)
		if !response.GetComplete() {
			continue
		}
		next, err := base.With(changes)
		if err != nil {
			return fmt.Errorf("apply changes: %w", err)
		}
		base, changes = next, nil
	}
	h.rules, h.unread, h.whole = base, h.unread[h.whole:], 0
	return nil
}

// ErrNotKept says that the agent keeps no rules.
var ErrNotKept = errors.New("the agent does not keep rules")

// Rules returns the rule set that the agent was sent last, whole. It fails when the changes do not lead to the
// content that the server announced.
func (a *Agent) Rules() (*ruleset.RuleSet, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.keep {
		return nil, ErrNotKept
	}
	if err := a.held.catchUp(); err != nil {
		return nil, fmt.Errorf("%s: %w", a.name, err)
	}
	if id := a.held.rules.ID(); string(id[:]) != a.state.RuleSetID {
		return nil, fmt.Errorf("%s: %w: what it sent is %s, it announced %x", a.name, errProtocol, id, a.state.RuleSetID)
	}
	return a.held.rules, nil
}
