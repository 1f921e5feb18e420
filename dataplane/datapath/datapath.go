package datapath

import (
	"context"
	"errors"
	"net/netip"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/observe"
)

// ErrLayoutMismatch is returned by Open when pins are there that this build cannot adopt.
var ErrLayoutMismatch = errors.New("pinned maps are of another layout")

// Datapath is the pinned programs and maps, opened. Its methods are safe for concurrent use; Apply and
// SetEndpoints wait for one another.
type Datapath struct{}

// Open adopts the pins below cfg.PinDir or makes them, and restores what the journal knows into table.
// It starts nothing. What was in force stays in force until the first Apply.
func Open(cfg Config, table *observe.Table) (*Datapath, error) { return nil, errors.ErrUnsupported }

// Programs returns the pins that the packet filter calls.
func (d *Datapath) Programs() Programs { return Programs{} }

// RetirePrograms removes the pins of programs of other builds. To be called when no rule names them.
func (d *Datapath) RetirePrograms() error { return errors.ErrUnsupported }

// Apply puts a rule set in force, whole: every packet is judged by what was in force before or by this
// one, and a name that was learned before opens its addresses under this one too. On error what was in
// force before stays; enforce.ErrFull is wrapped when a map cannot hold the rule set.
func (d *Datapath) Apply(ctx context.Context, rules *ruleset.RuleSet) error {
	return errors.ErrUnsupported
}

// SetEndpoints says which resolvers are trusted and which policy servers the node may always reach.
// Addresses of both families; UDP and TCP for resolvers, TCP for servers.
func (d *Datapath) SetEndpoints(resolvers, servers []netip.AddrPort) error {
	return errors.ErrUnsupported
}

// Counters returns what was counted since the maps were made, by name: dns_responses_<result>
// (learned, unmatched, malformed, …), verdicts_<verdict> (allow, deny, audit), mappings_created,
// mappings_evicted, events_lost and so on.
func (d *Datapath) Counters() (map[string]uint64, error) { return nil, errors.ErrUnsupported }

// Run hands on what the programs learn, watches the node's interfaces and collects what expired, until
// ctx ends or the pins are gone.
func (d *Datapath) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Close lets go of the pins and leaves them in force.
func (d *Datapath) Close() error { return nil }

// Remove removes every pin and directory below pinDir that a datapath made. The rules that name the
// programs must be gone. What does not exist is no error.
func Remove(pinDir string) error { return errors.ErrUnsupported }

// Probe checks, by doing it, whether the node can run a datapath with its pins at pinDir. It leaves
// nothing behind.
func Probe(pinDir string) []Requirement { return nil }
