// Package enforce is the only writer of kernel state: it takes the newest wanted rule set, brings the
// maps and the packet filter's hooks to it, keeps them there, and says what is in force. A rule set
// that cannot be applied leaves the last good one where it is.
package enforce

import (
	"context"
	"errors"

	"github.com/nameward/nameward/api/ruleset"
)

// ErrFull says that a rule set does not fit into the datapath. The error that wraps it names what is full.
var ErrFull = errors.New("does not fit into the datapath")

// ErrOverlap says that the programs of another release still judge, by the rule set that they have, while
// this one's learn beside them. It passes within the time that a question waits for its answer.
var ErrOverlap = errors.New("the programs of another release judge until these know what they know")

// Maps is the part of the datapath that holds rules.
type Maps interface {
	// Apply puts a rule set in force, whole: each packet is judged by what was in force before or by
	// this one. On error what was in force before stays. ErrFull when a map cannot hold it.
	Apply(ctx context.Context, rules *ruleset.RuleSet) error
	// Holds reports whether a rule set is what is in force, as far as the maps can tell.
	Holds(rules *ruleset.RuleSet) (bool, error)
}

// Missing ends what Hooks.Ensure says of a chain or jump that was not there, or of a chain that was empty.
const Missing = "was missing"

// Hooks is the part of the node's packet filter that calls the programs.
type Hooks interface {
	// Ensure makes the chains, rules and jumps what they should be, and names what it had to mend;
	// nothing when all stood. Before it mends something it calls mending with what is wrong: who dies behind
	// that leaves no trace in the rules of what they were.
	Ensure(ctx context.Context, mending func(faults []string)) (mended []string, err error)
}

// Saver keeps the last good rule set over a restart of the node.
type Saver interface {
	// Save replaces what was saved before. On error that stays.
	Save(revision *Revision) error
	// Retain keeps what is saved now as one that connections may have been allowed by, until Release.
	Retain() error
	// RetainAny keeps, until Release, that connections may have been allowed by anything.
	RetainAny() error
	// Release drops all that was retained.
	Release() error
}
