package datapath

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"
	"time"
	"unsafe"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/flow"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf"
)

// protocolICMPv6 counts as ICMP wherever rules are concerned.
const protocolICMPv6 = 58

// stopped is a connection that was denied, or would have been, as the kernel tells it.
type stopped struct {
	bpf.DatapathFlowEvent
	seen     time.Time
	question domain.Name // the name asked for, where the connection is a question; else zero
}

// decodeFlow reads struct flow_event and what comes behind it.
func decodeFlow(raw []byte, c clock) (stopped, error) {
	var s stopped
	if _, err := binary.Decode(raw, binary.LittleEndian, &s.DatapathFlowEvent); err != nil {
		return s, errShortEvent
	}
	s.seen = c.fromBoot(s.SeenAtNs)
	if s.NameBytes == 0 {
		return s, nil
	}
	wire := raw[unsafe.Sizeof(s.DatapathFlowEvent):]
	if int(s.NameBytes) > len(wire) {
		return s, errShortEvent
	}
	names, err := decodeNames(wire[:s.NameBytes], 1)
	if err != nil {
		return s, err
	}
	s.question = names[0]
	return s, nil
}

// takeFlow hands on a connection: once as what policies in mode ENFORCE denied, once as what those in
// mode AUDIT would have.
func (d *Datapath) takeFlow(s *stopped) {
	key := flow.Key{
		Workload: d.workloadOf(s), Destination: destinationOf(s), Question: s.question,
	}
	if s.Flags&bpf.DatapathFlowFlagFLOW_DENIED != 0 {
		d.setReason(&key, s, s.Flags&bpf.DatapathFlowFlagFLOW_ENFORCED_RULE != 0, s.Enforced)
		d.flows.Record(key, s.seen)
	}
	if s.Flags&bpf.DatapathFlowFlagFLOW_AUDITED != 0 {
		key.Mode = ruleset.Audit
		d.setReason(&key, s, s.Flags&bpf.DatapathFlowFlagFLOW_AUDITED_RULE != 0, s.Audited)
		d.flows.Record(key, s.seen)
	}
}

// setReason says why the connection is denied, and by which rule if one decided.
func (d *Datapath) setReason(key *flow.Key, s *stopped, byRule bool, position uint32) {
	key.Policy, key.Rule = "", 0
	switch {
	case s.Reason == bpf.DatapathFlowReasonFLOW_UNREADABLE:
		key.Reason = flow.Unreadable
	case s.Reason == bpf.DatapathFlowReasonFLOW_UNKNOWN_INTERFACE:
		key.Reason = flow.UnknownInterface
	case s.Reason == bpf.DatapathFlowReasonFLOW_UNKNOWN_CGROUP:
		key.Reason = flow.UnknownCgroup
	case s.Reason == bpf.DatapathFlowReasonFLOW_TOO_MANY_CGROUPS:
		key.Reason = flow.TooManyCgroups
	case !byRule:
		key.Reason = flow.NoRule
	default:
		key.Reason = flow.RuleUnknown
		for _, p := range d.positions {
			if policy, rule, ok := p.rule(position); ok && p.digest == s.RuleSet {
				key.Reason, key.Policy, key.Rule = flow.Rule, policy, int32(rule) //nolint:gosec // bounded by what a server sends
			}
		}
	}
}

func (d *Datapath) workloadOf(s *stopped) flow.Workload {
	if s.Flags&bpf.DatapathFlowFlagFLOW_LOCAL == 0 {
		// A name of a link may have any bytes; texts of messages may not.
		return flow.Workload{Address: readable(s.Source), Interface: strings.ToValidUTF8(d.links.names[s.Ifindex], "?")}
	}
	w := flow.Workload{Host: true, HasUID: s.Flags&bpf.DatapathFlowFlagFLOW_UID != 0}
	if w.HasUID {
		w.UID = s.Uid
	}
	return w
}

func destinationOf(s *stopped) flow.Destination {
	d := flow.Destination{
		Address: readable(s.Destination), Port: bits.ReverseBytes16(s.DestinationPort), Protocol: ruleset.Protocol(s.Protocol),
	}
	if d.Protocol == protocolICMPv6 {
		d.Protocol = ruleset.ICMP
	}
	return d
}

// readable turns an address of a record into one of this process; what the kernel could not read is zero.
func readable(a bpf.DatapathAddress) netip.Addr {
	if a == (bpf.DatapathAddress{}) {
		return netip.Addr{}
	}
	return netip.AddrFrom16(a.Bytes).Unmap()
}
