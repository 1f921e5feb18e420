package datapath

import (
	"net/netip"
	"testing"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
)

// judged is a datapath whose program judges forwarded connections.
type judged struct {
	*fixture
	t *testing.T
}

func (j judged) Verdict(c ruleset.Connection) ruleset.Action {
	packet := bpftest.Connection(uint8(c.Protocol), netip.AddrPortFrom(c.Source, 50000), netip.AddrPortFrom(c.Destination, c.Port))
	if j.run(j.t, bpf.DatapathProgEgressForwarded, packet) == 0 {
		return ruleset.Allow
	}
	return ruleset.Deny
}

func TestMapsOfTheKernel(t *testing.T) {
	enforcetest.TestMaps(t, func(t *testing.T) enforcetest.MapsSubject {
		return judged{newFixture(t, func(cfg *Config) { cfg.MaxPatterns = 64 }), t}
	})
}
