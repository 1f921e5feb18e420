package flow

import (
	"errors"
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
)

// ToProto returns the event as the message of a node.
func (e *Event) ToProto(id node.ID) *namewardv1.FlowEvent {
	message := e.Key.ToProto(id)
	message.Count = e.Count
	message.FirstTime = timestamppb.New(e.FirstSeen)
	message.LastTime = timestamppb.New(e.LastSeen)
	for _, name := range e.Domains {
		message.Domains = append(message.Domains, name.String())
	}
	return message
}

// ToProto returns the key as the message of a node that has nothing else.
func (k Key) ToProto(id node.ID) *namewardv1.FlowEvent {
	message := &namewardv1.FlowEvent{
		Verdict: namewardv1.Verdict_DENY, Mode: k.Mode.ToProto(), Node: id.ResourceName(),
		Reason:   namewardv1.FlowEvent_Reason(k.Reason),
		Workload: &namewardv1.FlowEvent_Workload{Host: k.Workload.Host, Interface: k.Workload.Interface},
		Destination: &namewardv1.FlowEvent_Destination{
			Address: textOf(k.Destination.Address), Port: uint32(k.Destination.Port),
			Protocol: k.Destination.Protocol.ToProto(),
		},
		Policy: k.Policy, Question: k.Question.String(),
	}
	message.Workload.Address = textOf(k.Workload.Address)
	if k.Workload.HasUID {
		message.Workload.Uid = &k.Workload.UID
	}
	if message.Destination.Protocol == namewardv1.Protocol_PROTOCOL_UNSPECIFIED {
		message.Destination.ProtocolNumber = uint32(k.Destination.Protocol)
	}
	if k.Policy != "" {
		message.Rule = &k.Rule
	}
	return message
}

func textOf(address netip.Addr) string {
	if !address.IsValid() {
		return ""
	}
	return address.String()
}

// maxText bounds a text that a node reports: names of policies and interfaces are far shorter.
const maxText = 128

// FromProto checks a flow event that a node reported.
func FromProto(message *namewardv1.FlowEvent) (*Event, error) {
	key, err := KeyFromProto(message)
	if err != nil {
		return nil, err
	}
	if message.GetCount() == 0 {
		return nil, errors.New("read count: it is zero")
	}
	if !message.GetFirstTime().IsValid() || !message.GetLastTime().IsValid() {
		return nil, errors.New("read times: one is missing or out of range")
	}
	if len(message.GetDomains()) > MaxDomains {
		return nil, fmt.Errorf("read domains: %d are more than %d", len(message.GetDomains()), MaxDomains)
	}
	e := &Event{
		Key: key, Count: message.GetCount(),
		FirstSeen: message.GetFirstTime().AsTime(), LastSeen: message.GetLastTime().AsTime(),
	}
	for _, text := range message.GetDomains() {
		name, err := domain.ParseCanonical(text)
		if err != nil {
			return nil, fmt.Errorf("read domains: %w", err)
		}
		e.Domains = append(e.Domains, name)
	}
	return e, nil
}

// KeyFromProto checks what identifies a flow event on its node.
func KeyFromProto(message *namewardv1.FlowEvent) (Key, error) {
	k := Key{Reason: Reason(message.GetReason()), Policy: message.GetPolicy(), Rule: message.GetRule()} //nolint:gosec // checked below
	var err error
	switch message.GetMode() {
	case namewardv1.Policy_ENFORCE:
	case namewardv1.Policy_AUDIT:
		k.Mode = ruleset.Audit
	default:
		return k, fmt.Errorf("read mode: %v is neither ENFORCE nor AUDIT", message.GetMode())
	}
	if message.GetReason() < namewardv1.FlowEvent_RULE || message.GetReason() > namewardv1.FlowEvent_TOO_MANY_CGROUPS {
		return k, fmt.Errorf("read reason: %v is not known", message.GetReason())
	}
	if (k.Reason == Rule) != (k.Policy != "") || k.Policy == "" && k.Rule != 0 || k.Rule < 0 {
		return k, fmt.Errorf("read rule: policy %q and rule %d do not fit reason %v", k.Policy, k.Rule, message.GetReason())
	}
	if len(k.Policy) > maxText || len(message.GetWorkload().GetInterface()) > maxText {
		return k, fmt.Errorf("read policy and interface: one has more than %d bytes", maxText)
	}
	if k.Workload, err = workloadFromProto(message.GetWorkload()); err != nil {
		return k, fmt.Errorf("read workload: %w", err)
	}
	if k.Destination, err = destinationFromProto(message.GetDestination()); err != nil {
		return k, fmt.Errorf("read destination: %w", err)
	}
	if message.GetQuestion() != "" {
		if k.Question, err = domain.ParseCanonical(message.GetQuestion()); err != nil {
			return k, fmt.Errorf("read question: %w", err)
		}
	}
	return k, nil
}

func workloadFromProto(message *namewardv1.FlowEvent_Workload) (Workload, error) {
	w := Workload{
		Host: message.GetHost(), UID: message.GetUid(), HasUID: message != nil && message.Uid != nil,
		Interface: message.GetInterface(),
	}
	var err error
	w.Address, err = parseAddress(message.GetAddress())
	return w, err
}

func destinationFromProto(message *namewardv1.FlowEvent_Destination) (Destination, error) {
	if message.GetPort() > 65535 || message.GetProtocolNumber() > 255 {
		return Destination{}, fmt.Errorf("port %d or protocol number %d is too large", message.GetPort(), message.GetProtocolNumber())
	}
	d := Destination{Port: uint16(message.GetPort()), Protocol: ruleset.Protocol(message.GetProtocolNumber())}
	var err error
	if message.GetProtocol() != namewardv1.Protocol_PROTOCOL_UNSPECIFIED {
		if d.Protocol, err = ruleset.ParseProtocol(message.GetProtocol()); err != nil {
			return d, fmt.Errorf("read protocol: %w", err)
		}
	}
	d.Address, err = parseAddress(message.GetAddress())
	return d, err
}

func parseAddress(text string) (netip.Addr, error) {
	if text == "" {
		return netip.Addr{}, nil
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("read address: %w", err)
	}
	return address.Unmap().WithZone(""), nil
}
