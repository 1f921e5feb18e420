// Package datapath is the kernel side of a node: it loads the BPF programs, keeps them and their maps
// pinned, puts rule sets in force, and hands on what the programs saw. Rule sets come in through
// Apply, already checked; learned responses go out to an observe.Table. Between two calls of Apply the
// kernel needs nothing of this package: rules, programs and what was learned live in the pins, outlive
// the process, and are adopted by the next one.
package datapath

import (
	"log/slog"
	"path/filepath"
	"time"
)

// layout is in the path of every pin: maps of another layout are other maps, which a start takes over from
// (see Inherit).
const layout = "v4"

// Config says where the datapath lives and how much it holds. Zero values are not defaulted.
type Config struct {
	PinDir   string // below a mounted bpffs
	StateDir string // for the journal of known mappings

	MinTTL, MaxTTL, TTLGrace time.Duration // bounds of a mapping's lifetime, and what is added to it
	QueryTimeout             time.Duration // how long a question waits for its answer

	Accepts bool // the programs that match what a policy allows are wanted

	Log *slog.Logger // nil: nothing is logged

	// Capacities count when the maps are made. Adopted maps keep theirs.
	MaxMappings         uint32 // live addresses
	MaxAddressesPerName uint32 // of one response; over many, observe.Table has the limit
	MaxQueries          uint32 // outstanding questions
	MaxPatterns         uint32 // domain names in patterns
}

// mapsDir is where a layout has its maps.
const mapsDir = "maps"

func (c Config) mapDir() string     { return filepath.Join(c.PinDir, layout, mapsDir) }
func (c Config) programDir() string { return filepath.Join(c.PinDir, layout, "programs") }

// Programs are the pins that iptables rules name. A pin never changes its program: another build has
// other paths.
type Programs struct {
	DNSQueryForwarded string // remembers a question; 1: the rules refuse it
	DNSQueryLocal     string // the same of the node itself
	DNSResponse       string // learns from a trusted answer; always 0
	DNSUntrusted      string // counts an answer of another resolver; always 0
	DNSUnasked        string // counts an answer that nobody asked for; always 0
	EgressForwarded   string // 1: a connection that passes through must be denied
	EgressLocal       string // 1: a connection of the node itself must be denied
	AcceptForwarded   string // 1: a policy allows a connection that passes through; there if Accepts
	AcceptLocal       string // 1: a policy allows a connection of the node itself; there if Accepts
}
