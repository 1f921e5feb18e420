package main

import (
	"context"
	"strings"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func (p *program) listMappings(ctx context.Context, filter *namewardv1.MappingFilter) ([]*namewardv1.Mapping, error) {
	list, stop, err := p.mappingLister()
	if err != nil {
		return nil, err
	}
	defer stop()
	return allPages(func(token string) ([]*namewardv1.Mapping, string, error) {
		page, err := list(ctx, &namewardv1.ListMappingsRequest{Filter: filter, PageSize: pageSize, PageToken: token})
		return page.GetMappings(), page.GetNextPageToken(), err
	})
}

type listMappingsFunc func(context.Context, *namewardv1.ListMappingsRequest) (*namewardv1.ListMappingsResponse, error)

// mappingLister returns the call that lists mappings, of the agent or of the server, and what ends its connection.
func (p *program) mappingLister() (listMappingsFunc, func(), error) {
	if p.options.agent != "" {
		connection, err := p.dialAgent()
		if err != nil {
			return nil, nil, err
		}
		client := agentv1.NewLocalServiceClient(connection)
		return func(ctx context.Context, request *namewardv1.ListMappingsRequest) (*namewardv1.ListMappingsResponse, error) {
			return client.ListMappings(ctx, request)
		}, func() { _ = connection.Close() }, nil
	}
	connection, err := p.dialServer()
	if err != nil {
		return nil, nil, err
	}
	client := namewardv1.NewObservationServiceClient(connection)
	return func(ctx context.Context, request *namewardv1.ListMappingsRequest) (*namewardv1.ListMappingsResponse, error) {
		page, err := client.ListMappings(ctx, request)
		p.sayIncomplete(page.GetUnreachable())
		return page, err //nolint:wrapcheck // of the call
	}, func() { _ = connection.Close() }, nil
}

func (p *program) mappingsTable(mappings []*namewardv1.Mapping) *table {
	wide := p.options.output == formatWide
	t := &table{header: []string{"DOMAIN", "ADDRESS", "NODE", "CLIENT", "EXPIRES"}}
	if wide {
		t.header = append(t.header, "FIRST SEEN", "LAST SEEN", "CHAIN")
	}
	for _, mapping := range mappings {
		row := p.mappingCells(mapping)
		if wide {
			row = append(row, plain(p.ago(mapping.GetFirstSeenTime())), plain(p.ago(mapping.GetLastSeenTime())),
				plain(orNone(strings.Join(mapping.GetChain(), " "))))
		}
		t.add(row...)
	}
	return t
}

func (p *program) mappingCells(mapping *namewardv1.Mapping) []cell {
	return []cell{
		plain(mapping.GetDomain()), plain(mapping.GetAddress()), plain(orNone(mapping.GetNode())),
		plain(orNone(mapping.GetClient())), plain(p.until(mapping.GetExpireTime())),
	}
}
