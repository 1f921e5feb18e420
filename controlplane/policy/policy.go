// Package policy holds policies and domain sets as the policy server works with them: parsed, valid and
// immutable. A message of the API or of the storage goes in, a Policy or a DomainSet comes out or every fault
// of the message. What is behind the parser never meets a pattern or a CIDR as text.
package policy

import (
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// Collection precedes the id in the name of a policy.
const Collection = "policies/"

// Policy is a named, ordered list of rules for the workloads it selects on the nodes it selects. It is
// immutable: holders share it and everything that it points to.
type Policy struct {
	// Name is the resource name, `policies/{policy}`.
	Name        string
	Description string
	// Selector holds the labels that a node must have; empty selects every node.
	Selector map[string]string
	// Rules is the checked form of everything that nodes evaluate: priority, mode, workloads, rules.
	Rules ruleset.Policy
	// Canonical is its part in the identity of a rule set, and Size the room that it takes there.
	Canonical []byte
	Size      Size
	// Etag, Revision and the times are the store's. They are zero in a policy that was not stored.
	Etag       string
	Revision   uint64
	CreateTime time.Time
	UpdateTime time.Time
	// Message is the policy as clients read it back: as they wrote it, but for A-labels in place of Unicode.
	Message *namewardv1.Policy
}

// Parse checks a message and makes a policy of it, which owns the message from then on. An error joins a
// *ruleset.FieldError for every fault, with paths from the policy: `rules[0].domains[1]`.
func Parse(message *namewardv1.Policy) (*Policy, error) {
	rules, err := ruleset.ParsePolicy(message)
	// A storage may hold what no interceptor saw.
	if err := errors.Join(ruleset.CheckPolicyName("name", message.GetName()), err); err != nil {
		return nil, err
	}
	message.Rules = withALabels(message.GetRules())
	return &Policy{
		Name:        message.GetName(),
		Description: message.GetDescription(),
		Selector:    message.GetNodeSelector().GetMatchLabels(),
		Rules:       rules,
		Canonical:   rules.Canonical(),
		Size:        sizeOf(rules),
		Etag:        message.GetEtag(),
		CreateTime:  readTime(message.GetCreateTime()),
		UpdateTime:  readTime(message.GetUpdateTime()),
		Message:     message,
	}, nil
}

// Selects reports whether the policy applies to a node with these labels.
func (p *Policy) Selects(labels map[string]string) bool {
	for key, want := range p.Selector {
		if got, ok := labels[key]; !ok || got != want {
			return false
		}
	}
	return true
}

// readTime tells an absent time from 1970, which AsTime makes of it.
func readTime(message *timestamppb.Timestamp) time.Time {
	if message == nil {
		return time.Time{}
	}
	return message.AsTime()
}
