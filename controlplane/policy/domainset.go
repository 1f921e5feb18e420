package policy

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

const (
	// DomainSetCollection precedes the id in the name of a domain set.
	DomainSetCollection = "domainSets/"
	// MaxDomains bounds the domains of a set, and so what one set costs the server in memory.
	MaxDomains = 1 << 20
	// MaxInlineDomains is how many domains a DomainSet message has at most.
	MaxInlineDomains = ruleset.MaxInlineDomains
)

// DomainSet is a named list of domain patterns that the rules of policies share. It is immutable: holders
// share it and everything that it points to.
type DomainSet struct {
	// DomainSet is what nodes hold of it: the name, `domainSets/{domain_set}`, and the domains.
	ruleset.DomainSet
	Description string
	// Etag, Revision and the times are the store's. They are zero in a set that was not stored.
	Etag       string
	Revision   uint64
	CreateTime time.Time
	UpdateTime time.Time
	// Buckets is in how many parts the store keeps the domains.
	Buckets int
}

// ParseDomainSet checks a message and makes a set of it. An error joins a *ruleset.FieldError for every
// fault, with paths from the message: `domains[1]`.
func ParseDomainSet(message *namewardv1.DomainSet) (*DomainSet, error) {
	domains, err := ParseDomains(message.GetDomains(), 0)
	err = errors.Join(ruleset.CheckDomainSetName("name", message.GetName()), err)
	if err != nil {
		return nil, err
	}
	return &DomainSet{
		DomainSet:   ruleset.NewDomainSet(message.GetName(), domains),
		Description: message.GetDescription(),
		Etag:        message.GetEtag(),
		CreateTime:  readTime(message.GetCreateTime()),
		UpdateTime:  readTime(message.GetUpdateTime()),
	}, nil
}

// ParseDomains reads domain patterns. An error joins a *ruleset.FieldError for every fault, whose paths
// count from first on: `domains[first]`.
func ParseDomains(texts []string, first int) ([]domain.Pattern, error) {
	domains := make([]domain.Pattern, 0, len(texts))
	var faults []error
	for i, text := range texts {
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			faults = append(faults, &ruleset.FieldError{Field: fmt.Sprintf("domains[%d]", first+i), Value: text, Reason: err.Error()})
			continue
		}
		domains = append(domains, pattern)
	}
	return domains, errors.Join(faults...)
}

// Inline reports whether a message of the set has its domains.
func (s *DomainSet) Inline() bool { return len(s.Domains) <= MaxInlineDomains }

// Message returns the set as clients read it, with its domains if those are few.
func (s *DomainSet) Message() *namewardv1.DomainSet {
	message := s.Header()
	if s.Inline() {
		message.Domains = Texts(s.Domains)
	}
	return message
}

// Header returns the message of the set without its domains.
func (s *DomainSet) Header() *namewardv1.DomainSet {
	return &namewardv1.DomainSet{
		Name:        s.Name,
		Description: s.Description,
		DomainCount: int32(len(s.Domains)), //nolint:gosec // at most MaxDomains
		Etag:        s.Etag,
		CreateTime:  writeTime(s.CreateTime),
		UpdateTime:  writeTime(s.UpdateTime),
	}
}

// Texts returns the texts of patterns.
func Texts(patterns []domain.Pattern) []string {
	texts := make([]string, len(patterns))
	for i, pattern := range patterns {
		texts[i] = pattern.String()
	}
	return texts
}

func writeTime(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
