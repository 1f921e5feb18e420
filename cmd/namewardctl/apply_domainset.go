package main

import (
	"context"
	"errors"
	"io"
	"slices"

	"google.golang.org/protobuf/types/known/fieldmaskpb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

const (
	// inlineDomains is how many domains the API takes in a message; more go as a stream.
	inlineDomains = 10_000
	// domainPageSize is the largest page of domains that the API gives, and the parts of a stream.
	domainPageSize = 10_000
)

func (a *applier) planDomainSet(ctx context.Context, set *namewardv1.DomainSet) (outcome string, err error) {
	current, err := a.sets.GetDomainSet(ctx, &namewardv1.GetDomainSetRequest{Name: set.GetName()})
	missing := isNotFound(err)
	if err != nil && !missing {
		return "", err
	}
	var same bool
	if len(set.GetDomains()) > inlineDomains {
		var response *namewardv1.ReplaceDomainsResponse
		response, err = a.replaceDomains(ctx, set, true)
		same = response.GetAddedCount()+response.GetRemovedCount() == 0 && current.GetDescription() == set.GetDescription()
	} else {
		var wanted *namewardv1.DomainSet
		wanted, err = a.sets.UpdateDomainSet(ctx, updateDomainSetRequest(set, true))
		same = current.GetDescription() == wanted.GetDescription() && slices.Equal(current.GetDomains(), wanted.GetDomains()) &&
			current.GetDomainCount() == wanted.GetDomainCount()
	}
	switch {
	case err != nil:
		return "", err
	case missing:
		return outcomeCreated, nil
	case same:
		return outcomeUnchanged, nil
	}
	return outcomeConfigured, nil
}

// writeDomainSet writes a set. What does not fit into one message is first the domains, at once, then the
// description, which decides nothing.
func (a *applier) writeDomainSet(ctx context.Context, set *namewardv1.DomainSet) error {
	if len(set.GetDomains()) <= inlineDomains {
		_, err := a.sets.UpdateDomainSet(ctx, updateDomainSetRequest(set, false))
		return err
	}
	written, err := a.replaceDomains(ctx, set, false)
	if err != nil || written.GetDomainSet().GetDescription() == set.GetDescription() {
		return err
	}
	_, err = a.sets.UpdateDomainSet(ctx, &namewardv1.UpdateDomainSetRequest{
		DomainSet:  &namewardv1.DomainSet{Name: set.GetName(), Description: set.GetDescription(), Etag: written.GetDomainSet().GetEtag()},
		UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"description"}},
	})
	return err
}

// updateDomainSetRequest asks for the whole set: a field that the document does not set is cleared.
func updateDomainSetRequest(set *namewardv1.DomainSet, validateOnly bool) *namewardv1.UpdateDomainSetRequest {
	return &namewardv1.UpdateDomainSetRequest{
		DomainSet:    set,
		UpdateMask:   &fieldmaskpb.FieldMask{Paths: []string{"*"}},
		AllowMissing: true,
		ValidateOnly: validateOnly,
	}
}

// replaceDomains sends the domains of a set in parts.
func (a *applier) replaceDomains(ctx context.Context, set *namewardv1.DomainSet, validateOnly bool) (*namewardv1.ReplaceDomainsResponse, error) {
	stream, err := a.sets.ReplaceDomains(ctx)
	if err != nil {
		return nil, err
	}
	request := &namewardv1.ReplaceDomainsRequest{Name: set.GetName(), Etag: set.GetEtag(), AllowMissing: true, ValidateOnly: validateOnly}
	sent := a.progress(len(set.GetDomains()))
	defer sent.end()
	for part := range slices.Chunk(set.GetDomains(), domainPageSize) {
		request.Domains = part
		// The end of the stream is the server's answer, which comes with its cause.
		if err := stream.Send(request); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		sent.step(len(part))
		request = &namewardv1.ReplaceDomainsRequest{}
	}
	return stream.CloseAndRecv()
}
