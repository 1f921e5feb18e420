package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// listFlows reads flow events from the agent or the server, the one that was seen last first.
func (p *program) listFlows(ctx context.Context, filter *namewardv1.FlowEventFilter) ([]*namewardv1.FlowEvent, error) {
	list, stop, err := p.flowLister()
	if err != nil {
		return nil, err
	}
	defer stop()
	flows, err := allPages(func(token string) ([]*namewardv1.FlowEvent, string, error) {
		page, err := list(ctx, &namewardv1.ListFlowEventsRequest{Filter: filter, PageSize: pageSize, PageToken: token})
		return page.GetFlowEvents(), page.GetNextPageToken(), err
	})
	slices.SortStableFunc(flows, func(a, b *namewardv1.FlowEvent) int {
		return b.GetLastTime().AsTime().Compare(a.GetLastTime().AsTime())
	})
	return flows, err
}

type listFlowsFunc func(context.Context, *namewardv1.ListFlowEventsRequest) (*namewardv1.ListFlowEventsResponse, error)

// flowLister returns the call that lists flow events, of the agent or of the server, and what ends its connection.
func (p *program) flowLister() (listFlowsFunc, func(), error) {
	if p.options.agent != "" {
		connection, err := p.dialAgent()
		if err != nil {
			return nil, nil, err
		}
		client := agentv1.NewLocalServiceClient(connection)
		return func(ctx context.Context, request *namewardv1.ListFlowEventsRequest) (*namewardv1.ListFlowEventsResponse, error) {
			return client.ListFlowEvents(ctx, request)
		}, func() { _ = connection.Close() }, nil
	}
	connection, err := p.dialServer()
	if err != nil {
		return nil, nil, err
	}
	client := namewardv1.NewObservationServiceClient(connection)
	return func(ctx context.Context, request *namewardv1.ListFlowEventsRequest) (*namewardv1.ListFlowEventsResponse, error) {
		page, err := client.ListFlowEvents(ctx, request)
		p.sayIncomplete(page.GetUnreachable())
		return page, err //nolint:wrapcheck // of the call
	}, func() { _ = connection.Close() }, nil
}

func (p *program) flowsTable(flows []*namewardv1.FlowEvent) *table {
	wide := p.options.output == formatWide
	t := &table{header: flowHeader()}
	if wide {
		t.header = append(t.header, "FIRST", "INTERFACE")
	}
	for _, flow := range flows {
		row := p.flowCells(flow)
		if wide {
			row[flowDomains] = plain(orNone(domainsText(flow, len(flow.GetDomains()))))
			row = append(row, plain(p.ago(flow.GetFirstTime())), plain(orNone(flow.GetWorkload().GetInterface())))
		}
		t.add(row...)
	}
	return t
}

// flowDomains is the column of the names, of which only wide output shows all.
const flowDomains = 5

func flowHeader() []string {
	return []string{"VERDICT", "MODE", "NODE", "WORKLOAD", "DESTINATION", "DOMAINS", "RULE", "COUNT", "LAST"}
}

func (p *program) flowCells(flow *namewardv1.FlowEvent) []cell {
	return []cell{
		verdictCell(flow.GetVerdict()), modeCell(flow.GetMode()), plain(orNone(flow.GetNode())),
		plain(flowWorkload(flow.GetWorkload())), plain(flowDestination(flow.GetDestination())),
		plain(orNone(domainsText(flow, 1))), plain(flowRule(flow)),
		plain(strconv.FormatUint(flow.GetCount(), 10)), plain(p.ago(flow.GetLastTime())),
	}
}

func flowWorkload(workload *namewardv1.FlowEvent_Workload) string {
	switch {
	case workload != nil && workload.Uid != nil:
		return "uid:" + strconv.FormatUint(uint64(workload.GetUid()), 10)
	case workload.GetHost():
		return "host"
	}
	return orNone(workload.GetAddress())
}

func flowDestination(destination *namewardv1.FlowEvent_Destination) string {
	address := orNone(destination.GetAddress())
	if destination.GetPort() != 0 {
		address = net.JoinHostPort(address, strconv.FormatUint(uint64(destination.GetPort()), 10))
	}
	switch {
	case destination.GetProtocol() != namewardv1.Protocol_PROTOCOL_UNSPECIFIED:
		return address + " " + destination.GetProtocol().String()
	case destination.GetProtocolNumber() != 0:
		return fmt.Sprintf("%s protocol %d", address, destination.GetProtocolNumber())
	}
	return address
}

// domainsText shows so many names of the destination at most, and how many there are besides; of a
// question that was refused, the name that was asked for.
func domainsText(flow *namewardv1.FlowEvent, most int) string {
	if flow.GetQuestion() != "" {
		return "question " + flow.GetQuestion()
	}
	domains := flow.GetDomains()
	if len(domains) <= most {
		return strings.Join(domains, " ")
	}
	return fmt.Sprintf("%s +%d", strings.Join(domains[:most], " "), len(domains)-most)
}

// flowRule says what decided.
func flowRule(flow *namewardv1.FlowEvent) string {
	if flow.GetPolicy() != "" {
		return fmt.Sprintf("%s rule %d", flow.GetPolicy(), flow.GetRule())
	}
	return strings.ToLower(strings.ReplaceAll(flow.GetReason().String(), "_", " "))
}

func flowLines() *lineTable {
	return &lineTable{
		header: append([]string{"CHANGE"}, flowHeader()...), widths: []int{6, 7, 7, 16, 15, 24, 24, 24, 5},
	}
}

// flowChange returns nil where there is no flow event: in the response that ends the snapshot.
func (p *program) flowChange(flow *namewardv1.FlowEvent) *change {
	if flow == nil {
		return nil
	}
	return &change{kind: "PUT", object: flow, row: append([]cell{{"PUT", styleGood}}, p.flowCells(flow)...)}
}
