// Package flow holds flow events in checked form: connections that policies denied, or would have denied.
// The agent makes them of what the kernel tells, the policy server keeps those of all nodes; both read
// the messages, order and select them by what is here.
package flow

import (
	"cmp"
	"net/netip"
	"strings"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
)

// MaxDomains is how many names of a destination a flow event tells.
const MaxDomains = 8

// Key is what all connections of a flow event agree in. Keys are comparable.
type Key struct {
	Mode        ruleset.Mode // Enforce or Audit
	Reason      Reason
	Workload    Workload
	Destination Destination
	// Policy is the resource name of the policy whose rule decided, and Rule the rule's position in it. Both
	// are zero unless Reason is Rule.
	Policy string
	Rule   int32
	// Question is the name that was asked for where a question was refused; else zero.
	Question domain.Name
}

// Workload is who opens connections: the node itself, or a source of forwarded ones.
type Workload struct {
	Host bool
	// UID counts if HasUID is set, of the node itself.
	UID    uint32
	HasUID bool
	// Address and Interface are of forwarded connections; zero when they are not known.
	Address   netip.Addr
	Interface string
}

// Destination is where connections go.
type Destination struct {
	Address  netip.Addr // zero when it could not be read
	Port     uint16
	Protocol ruleset.Protocol // any IP protocol number; ICMPv6 is ICMP
}

// Reason is why a connection is denied.
type Reason uint8

// The reasons, as the message has them.
const (
	Rule             Reason = iota + 1 // the rule says so
	NoRule                             // no rule allows it
	RuleUnknown                        // a rule that cannot be named any more
	Unreadable                         // the packet's headers cannot be read
	UnknownInterface                   // policies select by interface, and that one is not known
	UnknownCgroup                      // policies select by control group, and that one cannot be told
	TooManyCgroups                     // policies select too many control groups around that one
)

// Event is connections that agree in a key. It is immutable.
type Event struct {
	Key
	Count               uint64
	FirstSeen, LastSeen time.Time
	// Domains are the names under which the destination's address was last seen, the newest first.
	Domains []domain.Name
}

// Compare orders keys: by workload, then by destination, then by all else.
func (k *Key) Compare(other *Key) int {
	if c := k.Workload.compare(&other.Workload); c != 0 {
		return c
	}
	return cmp.Or(
		k.Destination.compare(&other.Destination),
		cmp.Compare(k.Mode, other.Mode),
		cmp.Compare(k.Reason, other.Reason),
		strings.Compare(k.Policy, other.Policy),
		cmp.Compare(k.Rule, other.Rule),
		strings.Compare(k.Question.String(), other.Question.String()),
	)
}

func (w *Workload) compare(other *Workload) int {
	return cmp.Or(
		compareFlags(w.Host, other.Host),
		compareFlags(w.HasUID, other.HasUID),
		cmp.Compare(w.UID, other.UID),
		w.Address.Compare(other.Address),
		strings.Compare(w.Interface, other.Interface),
	)
}

func (d *Destination) compare(other *Destination) int {
	return cmp.Or(d.Address.Compare(other.Address), cmp.Compare(d.Protocol, other.Protocol), cmp.Compare(d.Port, other.Port))
}

func compareFlags(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
