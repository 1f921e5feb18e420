package enforcetest

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

// Conntrack is a fake of the table of connections.
type Conntrack struct {
	mu          sync.Mutex // guards all below
	connections []*tracked
	names       map[netip.Addr][]domain.Name
	fault       error
	held        chan struct{}
	calls       []Call
	called      chan struct{}
}

// Call is what Cut was called with.
type Call struct {
	Before []*ruleset.RuleSet
	After  *ruleset.RuleSet
}

type tracked struct {
	connection ruleset.Connection
	cut        bool
}

// NewConntrack returns a table without connections.
func NewConntrack() *Conntrack {
	return &Conntrack{names: map[netip.Addr][]domain.Name{}, called: make(chan struct{})}
}

// Open adds a connection.
func (c *Conntrack) Open(connection ruleset.Connection) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connections = append(c.connections, &tracked{connection: connection})
}

// Name gives an address a name that it once had.
func (c *Conntrack) Name(address netip.Addr, name domain.Name) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names[address] = append(c.names[address], name)
}

// IsCut reports whether a connection is cut.
func (c *Conntrack) IsCut(connection ruleset.Connection) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.connections {
		if t.connection.Destination == connection.Destination && t.connection.Source == connection.Source && t.connection.Port == connection.Port {
			return t.cut
		}
	}
	return false
}

// Fail makes each Cut return err; nil ends that.
func (c *Conntrack) Fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = err
}

// Hold makes each Cut wait until the channel is closed.
func (c *Conntrack) Hold(until chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = until
}

// Calls returns what Cut was called with, and a channel that closes at the next call.
func (c *Conntrack) Calls() ([]Call, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls, c.called
}

// Cut cuts what one of before allowed and after denies.
func (c *Conntrack) Cut(ctx context.Context, before []*ruleset.RuleSet, after *ruleset.RuleSet) (enforce.CutCount, error) {
	if err := c.begin(ctx, Call{before, after}); err != nil {
		return enforce.CutCount{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var count enforce.CutCount
	for _, t := range c.connections {
		connection := t.connection
		connection.Names = c.names[connection.Destination]
		if after.Explain(connection).Verdict == ruleset.Allow {
			if t.cut {
				count.Restored++
			}
			t.cut = false
			continue
		}
		for i := len(before) - 1; i >= 0 && !t.cut; i-- {
			was := before[i].Explain(connection)
			if was.Verdict == ruleset.Deny {
				continue
			}
			if keeps(before[i], was.Policy) {
				count.Kept++
				break
			}
			t.cut = true
			count.Cut++
		}
	}
	return count, nil
}

func (c *Conntrack) begin(ctx context.Context, call Call) error {
	c.mu.Lock()
	c.calls = append(c.calls, call)
	close(c.called)
	c.called = make(chan struct{})
	held, fault := c.held, c.fault
	c.mu.Unlock()
	if held != nil {
		select {
		case <-held:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fault
}

func keeps(rules *ruleset.RuleSet, policy string) bool {
	for _, p := range rules.Policies {
		if p.Name == policy {
			return p.Established == ruleset.Keep
		}
	}
	return false
}

// ConntrackSubject is what TestConntrack tests: a table without connections.
type ConntrackSubject interface {
	enforce.Conntrack
	Open(c ruleset.Connection)
	Name(address netip.Addr, name domain.Name)
	IsCut(c ruleset.Connection) bool
}

// established is a change of the rules, and what it does to a connection of 10.1.0.7 to 192.0.2.1.
type established struct {
	fact   string
	before []*ruleset.RuleSet
	after  *ruleset.RuleSet
	want   enforce.CutCount
}

// TestConntrack states what any Conntrack must do.
func TestConntrack(t *testing.T, newConntrack func(t *testing.T) ConntrackSubject) {
	none, name := &ruleset.RuleSet{}, Patterns(2)
	web := established4("192.0.2.0/24", nil, ruleset.Cut)
	keep := established4("192.0.2.0/24", nil, ruleset.Keep)
	other, otherKeep := established4("198.51.100.0/24", nil, ruleset.Cut), established4("198.51.100.0/24", nil, ruleset.Keep)
	named, renamed := established4("198.51.100.0/24", name[:1], ruleset.Cut), established4("198.51.100.0/24", name[1:], ruleset.Cut)
	all, once := []*ruleset.RuleSet{web}, enforce.CutCount{Cut: 1}
	for _, e := range []established{
		{"what is no longer allowed is cut", all, other, once},
		{"what still is stays", all, web, enforce.CutCount{}},
		{"the first rules cut what nobody asked about before", []*ruleset.RuleSet{none}, other, once},
		{"without rules nothing is cut", []*ruleset.RuleSet{other}, none, enforce.CutCount{}},
		{"what was denied before is not touched", []*ruleset.RuleSet{other}, otherKeep, enforce.CutCount{}},
		{"the policy that allowed it may keep it", []*ruleset.RuleSet{keep}, other, enforce.CutCount{Kept: 1}},
		{"the policy that denies it may not", all, otherKeep, once},
		{"allowed by another name of its address", []*ruleset.RuleSet{web}, named, enforce.CutCount{}},
		{"the name is what is no longer allowed", []*ruleset.RuleSet{named}, renamed, once},
		{"allowed by any of several", []*ruleset.RuleSet{web, other}, otherKeep, once},
		{"the last that allowed it decides", []*ruleset.RuleSet{web, keep, other}, otherKeep, enforce.CutCount{Kept: 1}},
		{"of several, the last that allowed it cuts", []*ruleset.RuleSet{keep, web, other}, otherKeep, once},
	} {
		t.Run(e.fact, func(t *testing.T) {
			table := newConntrack(t)
			c := connection("10.1.0.7", "192.0.2.1", 443)
			beside := connection("10.2.0.7", "192.0.2.1", 443)
			table.Open(c)
			table.Open(beside)
			table.Name(c.Destination, asName(t, name[0]))
			got, err := table.Cut(t.Context(), e.before, e.after)
			if err != nil || got != e.want {
				t.Errorf("got %+v, %v, want %+v", got, err, e.want)
			}
			if cut := table.IsCut(c); cut != (e.want.Cut == 1) {
				t.Errorf("cut: %t", cut)
			}
			if table.IsCut(beside) {
				t.Error("a connection that no policy selects is cut")
			}
			if again, err := table.Cut(t.Context(), e.before, e.after); err != nil || again.Cut != 0 {
				t.Errorf("once more: got %+v, %v, want nothing cut", again, err)
			}
		})
	}
	t.Run("what is allowed again is restored", func(t *testing.T) { testRestored(t, newConntrack(t), web, other) })
	t.Run("a cancelled Cut says so", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := newConntrack(t).Cut(ctx, all, other); err == nil {
			t.Error("Cut succeeded")
		}
	})
}

func testRestored(t *testing.T, table ConntrackSubject, web, other *ruleset.RuleSet) {
	t.Helper()
	c := connection("10.1.0.7", "192.0.2.1", 443)
	table.Open(c)
	for range 2 {
		if _, err := table.Cut(t.Context(), []*ruleset.RuleSet{web}, other); err != nil || !table.IsCut(c) {
			t.Errorf("cut: %t, %v", table.IsCut(c), err)
		}
		if count, err := table.Cut(t.Context(), []*ruleset.RuleSet{other}, web); err != nil || table.IsCut(c) || count.Restored != 1 {
			t.Errorf("cut after it is allowed again: %t, %+v, %v", table.IsCut(c), count, err)
		}
	}
}

// established4 allows 10.1.0.0/16 a prefix and names.
func established4(prefix string, names []domain.Pattern, established ruleset.Established) *ruleset.RuleSet {
	return ruleset.New([]ruleset.Policy{{
		Name: "policies/test", Established: established,
		Workloads: []ruleset.Workload{{CIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}},
		Rules:     []ruleset.Rule{{CIDRs: []netip.Prefix{netip.MustParsePrefix(prefix)}}, {Domains: append(slices.Clone(names), never)}},
	}})
}

// never is a name that no test resolves, behind all others.
var never = Patterns(3)[2]

func asName(t *testing.T, p domain.Pattern) domain.Name {
	t.Helper()
	n, err := domain.ParseName(p.String())
	if err != nil {
		t.Fatal(err)
	}
	return n
}
