// Package netfilter keeps the node's iptables rules: chains of our own in mangle and filter, of both
// address families, that call the pinned programs, and one jump a hook. What is wanted comes in once,
// with New; Ensure makes it so, again and again. Nothing outside our chains and jumps is touched.
//
// A table is read whole with iptables-save and written in one transaction with iptables-restore
// --noflush, so that no packet ever meets a chain that is half filled; go-iptables, which cannot do
// that, removes. Rules are compared by the text that iptables prints, never with -C: a rule that names a
// pinned program equals its own specification only by chance. Jumps are deleted by specification, never by
// number: that may be of another's rule by then.
package netfilter

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// Backends of iptables.
const (
	Auto   = "auto"   // the one that holds the node's other rules
	NFT    = "nft"    // iptables-nft
	Legacy = "legacy" // iptables-legacy
)

// Targets of a denied packet.
const (
	Reject = "REJECT" // reset for TCP, port unreachable otherwise
	Drop   = "DROP"
)

// Targets of a connection that a policy allowed.
const (
	Return = "RETURN" // the node's other rules still decide
	Accept = "ACCEPT" // past the node's other rules of mangle and filter, in FORWARD and OUTPUT
)

// Programs are the paths of the pinned programs that the rules call.
type Programs struct {
	DNSQueryForwarded string // remembers a question; matches one that the rules refuse
	DNSQueryLocal     string // the same of the node itself
	DNSResponse       string // learns from a trusted answer; matches nothing
	DNSUntrusted      string // counts an answer of another resolver; matches nothing
	DNSUnasked        string // counts an answer that nobody asked for; matches nothing
	EgressForwarded   string // matches a forwarded connection that is denied
	EgressLocal       string // matches a connection of the node itself that is denied
	AcceptForwarded   string // matches a forwarded connection that a policy allows
	AcceptLocal       string // matches a connection of the node itself that a policy allows
}

// Config is what the rules should be.
type Config struct {
	Backend      string // Auto, NFT or Legacy
	Programs     Programs
	Resolvers    []netip.AddrPort // trusted, of both families
	Mark         uint32           // the bit that carries a denial from mangle to filter
	DeniedTarget string           // Reject or Drop
	// AllowedTarget is Return or Accept.
	AllowedTarget string
}

// Netfilter keeps the rules of one node. It is safe for concurrent use.
type Netfilter struct {
	backend  string
	families []*family

	mu       sync.Mutex // guards all below; one writer of tables at a time
	stood    bool       // all stood when version was read
	version  version
	deserted bool // the other backend held nothing of ours when others was read
	others   version
}

// New picks the backend and finds its programs. It changes nothing.
func New(ctx context.Context, cfg Config) (*Netfilter, error) {
	backend, err := Choose(ctx, cfg.Backend)
	if err != nil {
		return nil, err
	}
	n := &Netfilter{backend: backend}
	for _, p := range protocols() {
		tools, err := findTools(ctx, p, backend)
		if err != nil {
			return nil, err
		}
		n.families = append(n.families, &family{tools, wantedTables(cfg, p), overlapTable(cfg.Programs, resolversOf(cfg, p))})
	}
	return n, nil
}

// Backend returns the backend in use: NFT or Legacy.
func (n *Netfilter) Backend() string { return n.backend }

// IPv6 reports whether the node has IPv6, and so rules for it.
func (n *Netfilter) IPv6() bool { return len(n.families) > 1 }

// Ensure makes chains, rules and jumps what they should be, and names what it had to mend; nothing
// when all stood. Nothing of ours is in the other backend then.
func (n *Netfilter) Ensure(ctx context.Context, mending func(faults []string)) ([]string, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err //nolint:wrapcheck // the caller's own
	}
	mended, err := n.ensureOwn(ctx, mending)
	if err != nil {
		return mended, err
	}
	// After ours stand, so that no moment is without rules.
	removed, err := n.desert(ctx)
	return append(mended, removed...), err
}

func (n *Netfilter) ensureOwn(ctx context.Context, mending func([]string)) ([]string, error) {
	// Read before the rules are, so that a change meanwhile shows at the next call.
	version, err := n.readVersion()
	known := err == nil
	if known && n.stood && version == n.version {
		return nil, nil
	}
	mended, err := n.ensureAll(ctx, mending)
	n.stood, n.version = known && err == nil && len(mended) == 0, version
	return mended, err
}

// desert removes what is of ours in the other backend: left by an earlier agent, or copied there by who moves the
// node's rules. Twice there, each packet would be judged twice, and each answer counted twice.
func (n *Netfilter) desert(ctx context.Context) ([]string, error) {
	version, err := n.readOthers()
	known := err == nil
	if known && n.deserted && version == n.others {
		return nil, nil
	}
	removed, err := removeFrom(ctx, n.other())
	if err != nil {
		err = fmt.Errorf("remove rules from the %s backend: %w", n.other(), err)
	}
	n.deserted, n.others = known && err == nil && len(removed) == 0, version
	return removed, err
}

func (n *Netfilter) other() string { return map[string]string{NFT: Legacy, Legacy: NFT}[n.backend] }

func (n *Netfilter) ensureAll(ctx context.Context, mending func([]string)) ([]string, error) {
	var mended []string
	for _, f := range n.families {
		for _, t := range f.tables {
			names, err := f.ensure(ctx, t, mending)
			if err != nil {
				return mended, fmt.Errorf("ensure rules of %s %s: %w", f.tools.protocol, t.name, err)
			}
			mended = append(mended, names...)
		}
	}
	return mended, nil
}

// family is the rules of one address family.
type family struct {
	tools   tools
	tables  []*table
	overlap *table
}

// attempts is how often a table is written when somebody changes it each time before it is read again.
const attempts = 3

// ensure brings one table to what is wanted.
func (f *family) ensure(ctx context.Context, t *table, mending func([]string)) ([]string, error) {
	have, err := f.read(ctx, t)
	if err != nil {
		return nil, err
	}
	faults := t.faults(have)
	if len(faults) == 0 {
		return nil, nil
	}
	for i := range faults {
		faults[i] = fmt.Sprintf("%s %s: %s", f.tools.protocol, t.name, faults[i])
	}
	mending(faults)
	for attempt := 1; ; attempt++ {
		// A table that is not as it was when it was read may refuse what is written, or have another rule first again.
		err := f.tools.restore(ctx, t.transaction(have))
		after, readErr := f.read(ctx, t)
		if readErr != nil {
			return nil, errors.Join(err, readErr)
		}
		if err == nil {
			err = t.accept(after)
		}
		if err == nil {
			break
		}
		have = after
		if attempt == attempts || ctx.Err() != nil {
			return nil, err
		}
	}
	return faults, nil
}

func (f *family) read(ctx context.Context, t *table) (listing, error) {
	text, err := f.tools.save(ctx, t.name)
	if err != nil {
		return nil, err
	}
	return parseListing(text), nil
}

// lockWait is how long iptables-legacy waits for its lock while somebody else holds it.
const lockWait = 5 * time.Second
