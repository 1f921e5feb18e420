package dataplane

import (
	"context"
	"net/netip"
	"strings"

	"github.com/nameward/nameward/dataplane/conntrack"
	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/observe"
	"github.com/nameward/nameward/dataplane/preflight"
)

// kernelMaps is what the agent needs of the datapath.
type kernelMaps interface {
	enforce.Maps
	SetEndpoints(resolvers, servers []netip.AddrPort) error
	Counters() (map[string]uint64, error)
	TakeIn() error
	HoldsNone() (bool, error)
	Programs() datapath.Programs
	Inherit(inUse []string) (judged bool, err error)
	mapsOfTakeover
	// Fault is what of the datapath has failed and may pass, nil for nothing.
	Fault() error
	NamesOf(addresses map[netip.Addr]bool) (map[netip.Addr]observe.Names, error)
	Run(ctx context.Context) error
	Close() error
}

// kernelHooks is what the agent needs of the packet filter.
type kernelHooks interface {
	hooksOfTakeover
	Backend() string
	IPv6() bool
	Watch(ctx context.Context, changed func()) error
}

// kernelConntrack is what the agent needs of the table of connections.
type kernelConntrack interface {
	enforce.Conntrack
	SetEndpoints(resolvers, servers []netip.AddrPort)
}

// kernel makes what the agent runs on; a test makes it of fakes.
type kernel struct {
	probe     func(ctx context.Context, cfg Config) []Requirement // what is quickly known
	probeAll  func(ctx context.Context, cfg Config) []Requirement
	conflicts func(ctx context.Context, cfg Config) []Requirement
	openMaps  func(cfg datapath.Config, table *observe.Table, flows *observe.Flows) (kernelMaps, error)
	openHooks func(ctx context.Context, cfg netfilter.Config) (kernelHooks, error)
	inUse     func(ctx context.Context) (netfilter.InUse, error)
	conntrack func(cfg conntrack.Config) kernelConntrack
}

// realKernel is the machine's.
func realKernel() kernel {
	return kernel{
		probe:     requiredBeforeStart,
		probeAll:  requiredAll,
		conflicts: conflicts,
		openMaps: func(cfg datapath.Config, table *observe.Table, flows *observe.Flows) (kernelMaps, error) {
			return datapath.Open(cfg, table, flows)
		},
		openHooks: func(ctx context.Context, cfg netfilter.Config) (kernelHooks, error) {
			return netfilter.New(ctx, cfg)
		},
		inUse:     netfilter.ProgramsInUse,
		conntrack: func(cfg conntrack.Config) kernelConntrack { return conntrack.New(cfg) },
	}
}

// RequirementsError ends Run before anything was changed: the machine could enforce only a part.
type RequirementsError struct {
	Requirements []Requirement // all of them
}

// Error names what is not met; the requirements say more.
func (e *RequirementsError) Error() string {
	var names []string
	for _, r := range e.Requirements {
		if r.Level == preflight.Failed {
			names = append(names, r.Name)
		}
	}
	return "this machine does not meet the requirements: " + strings.Join(names, ", ")
}
