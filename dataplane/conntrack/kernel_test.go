package conntrack

import (
	"context"
	"encoding/binary"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/enforce/enforcetest"
	"github.com/nameward/nameward/dataplane/netfilter/netfiltertest"
	"github.com/nameward/nameward/dataplane/observe"
)

// machine is a network namespace of the test's own, with connections that are made by hand.
type machine struct {
	*Conntrack
	t      testing.TB
	names  map[netip.Addr][]domain.Name
	whole  bool
	native *kernelTable
}

// newMachine enters a namespace. With rules that ask for labels, connections have room for them.
func newMachine(t testing.TB, labels bool) *machine {
	t.Helper()
	netfiltertest.EnterNode(t)
	command(t, "ip link set lo up")
	command(t, "ip link add in0 type veth peer name other0")
	command(t, "ip link set in0 up")
	command(t, "ip link set other0 up")
	command(t, "ip addr add 10.1.0.1/16 dev in0")
	for _, program := range []string{"iptables-nft", "ip6tables-nft"} {
		command(t, program+" -t mangle -A PREROUTING -m conntrack --ctstate NEW")
	}
	if labels {
		askForLabels(t)
	}
	m := &machine{t: t, names: map[netip.Addr][]domain.Name{}, whole: true}
	m.Conntrack = New(Config{Accepts: true, Names: func(addresses map[netip.Addr]bool) (map[netip.Addr]observe.Names, error) {
		found := map[netip.Addr]observe.Names{}
		for a := range addresses {
			found[a] = observe.Names{Names: m.names[a], Whole: m.whole}
		}
		return found, nil
	}})
	var err error
	if m.native, err = openTable(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.native.close)
	return m
}

// askForLabels adds a rule of the agent's kind: from then on connections have room for a label.
func askForLabels(t testing.TB) {
	t.Helper()
	command(t, "iptables-nft -t mangle -A PREROUTING -m connlabel --label 127")
}

func command(t testing.TB, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func (m *machine) Name(address netip.Addr, name domain.Name) {
	m.names[address] = append(m.names[address], name)
}

func (m *machine) Open(c ruleset.Connection) {
	m.t.Helper()
	m.open(c, tcpEstablished)
}

func (m *machine) open(c ruleset.Connection, tcpState uint8) {
	m.t.Helper()
	if err := m.native.execute(messageNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, made(c, tcpState)); err != nil {
		m.t.Fatal(err)
	}
}

const (
	sourcePort     = 40000
	tcpEstablished = 3
	tcpFinWait     = 4
	tcpCloseInit   = 4 // a flag: this side began to close (linux/netfilter/nf_conntrack_tcp.h)
)

// made is a connection, of TCP in a state.
func made(c ruleset.Connection, tcpState uint8) []byte {
	from, to := netip.AddrPortFrom(c.Source, sourcePort), netip.AddrPortFrom(c.Destination, c.Port)
	family := uint8(unix.AF_INET)
	if c.Source.Is6() {
		family = unix.AF_INET6
	}
	b := head(family)
	b = appendAttribute(b, attrOriginal|unix.NLA_F_NESTED, nameTuple(from, to, uint8(c.Protocol)))
	b = appendAttribute(b, attrReply|unix.NLA_F_NESTED, nameTuple(to, from, uint8(c.Protocol)))
	b = appendAttribute(b, attrTimeout, binary.BigEndian.AppendUint32(nil, 300))
	const seenReply, assured = 1 << 1, 1 << 2
	b = appendAttribute(b, attrStatus, binary.BigEndian.AppendUint32(nil, statusConfirmed|seenReply|assured))
	if c.Protocol == ruleset.TCP {
		state := appendAttribute(nil, attrTCPState, []byte{tcpState})
		if tcpState == tcpFinWait {
			state = appendAttribute(state, attrTCPFlags, []byte{tcpCloseInit, 0xff})
		}
		b = appendAttribute(b, attrProtoInfo|unix.NLA_F_NESTED, appendAttribute(nil, attrTCP|unix.NLA_F_NESTED, state))
	}
	return b
}

// labels returns the label of a connection, and whether there is such a connection.
func (m *machine) labels(c ruleset.Connection) (cut, denied, exists bool) {
	m.t.Helper()
	if _, err := m.native.list(func(e *entry) {
		if e.original.source.Addr() == c.Source && e.original.destination == netip.AddrPortFrom(c.Destination, c.Port) && e.original.protocol == uint8(c.Protocol) {
			cut, denied, exists = e.labelled(cutLabel), e.labelled(deniedLabel), true
		}
	}); err != nil {
		m.t.Fatal(err)
	}
	return cut, denied, exists
}

func (m *machine) IsCut(c ruleset.Connection) bool {
	cut, _, exists := m.labels(c)
	if !exists {
		m.t.Errorf("no connection of %v to %v", c.Source, c.Destination)
	}
	return cut
}

func TestConntrackOfTheKernel(t *testing.T) {
	enforcetest.TestConntrack(t, func(t *testing.T) enforcetest.ConntrackSubject { return newMachine(t, true) })
}

// A connection that is older than the rules has no room for a label.
func TestConntrackOfTheKernelBeforeTheRules(t *testing.T) {
	enforcetest.TestConntrack(t, func(t *testing.T) enforcetest.ConntrackSubject {
		return &older{machine: newMachine(t, false)}
	})
}

// TestConnectionsThatAreOverAreForgotten: made anew, they would let new ones on the same ports pass.
func TestConnectionsThatAreOverAreForgotten(t *testing.T) {
	m := newMachine(t, false)
	c := tcp("10.1.2.3", "198.51.100.1", 443)
	m.open(c, tcpTimeWait)
	askForLabels(t)
	count, err := m.Cut(t.Context(), []*ruleset.RuleSet{{}}, rulesFor(fromCIDRs("10.1.0.0/16"), "192.0.2.0/24"))
	if err != nil || count != (enforce.CutCount{}) {
		t.Errorf("got %+v, %v, want nothing that is missed", count, err)
	}
	if _, _, exists := m.labels(c); exists {
		t.Error("the connection is still there")
	}
}

// TestConnectionsThatCloseAreKnownToClose: made anew, they would let new ones on the same ports pass once they are over.
func TestConnectionsThatCloseAreKnownToClose(t *testing.T) {
	m := newMachine(t, false)
	c := tcp("10.1.2.3", "198.51.100.1", 443)
	m.open(c, tcpFinWait)
	askForLabels(t)
	if _, err := m.Cut(t.Context(), []*ruleset.RuleSet{{}}, rulesFor(fromCIDRs("10.1.0.0/16"), "192.0.2.0/24")); err != nil {
		t.Fatal(err)
	}
	closes := false
	if _, err := m.native.list(func(e *entry) {
		for info := range attributes(e.raw) {
			if info.kind != attrProtoInfo {
				continue
			}
			for known := range attributes(info.value) {
				for a := range attributes(known.value) {
					closes = closes || a.kind == attrTCPFlags && a.value[0]&tcpCloseInit != 0
				}
			}
		}
	}); err != nil {
		t.Fatal(err)
	}
	if cut := m.IsCut(c); !cut || !closes {
		t.Errorf("cut %t, known to close %t, want both", cut, closes)
	}
}

// older is a machine whose rules come after its connections.
type older struct {
	*machine
	asked bool
}

func (o *older) Cut(ctx context.Context, before []*ruleset.RuleSet, after *ruleset.RuleSet) (enforce.CutCount, error) {
	if !o.asked {
		askForLabels(o.t)
		o.asked = true
	}
	return o.machine.Cut(ctx, before, after)
}

func (o *older) Open(c ruleset.Connection) {
	o.machine.Open(c)
	if o.labelled(c) {
		o.t.Error("the connection has room for a label")
	}
}

func (m *machine) labelled(c ruleset.Connection) (has bool) {
	_, _ = m.native.list(func(e *entry) { has = has || e.original.source.Addr() == c.Source && e.labels != nil })
	return has
}
