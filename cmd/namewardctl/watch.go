package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func (p *program) watchCommand() *cobra.Command {
	var filter filter
	command := &cobra.Command{
		Use:   "watch mappings|flows|nodes|policies",
		Short: "Print mappings, denied connections, nodes or policies as they change",
		Long: `watch prints what there is, then each change as it happens, until it is interrupted. With
-o json each line is one mapping, flow event, node or policy, with one key more: "change" is PUT for what is
there, new or changed, and DELETE for what has ended. A watch of policies whose connection breaks goes on where it
broke, with each change once; the others end with 1.`,
		Example: `  namewardctl watch mappings --domain '*.example.com'
  namewardctl watch mappings -o json | jq -r .address
  namewardctl watch flows --node lab --workload 10.1.0.0/24
  namewardctl watch nodes --state failed`,
		ValidArgs: []string{mappingsCollection, "flows", nodesCollection, policiesCollection},
		Args:      cobra.ArbitraryArgs,
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("what to watch must be given: mappings, flows, nodes or policies")
			}
			collection, err := parseCollection(args[0])
			if err != nil {
				return usageError{err}
			}
			if err := filter.fits(collection); err != nil {
				return err
			}
			return p.watch(command.Context(), collection, filter)
		},
	}
	filter.bind(command.Flags())
	p.completeFilter(command)
	p.options.bindOutput(command)
	return command
}

func (p *program) watch(ctx context.Context, collection string, filter filter) error {
	mappings, err := filter.mappings()
	if err != nil {
		return err
	}
	flows, err := filter.flows()
	if err != nil {
		return err
	}
	switch {
	case collection == domainSetsCollection || collection == auditCollection:
		return usagef("%s cannot be watched: policies, nodes, mappings and flows can", plural(collection))
	case collection == policiesCollection && filter.set():
		return usagef("policies are watched all: nothing selects among them")
	case p.options.agent != "" && (collection == mappingsCollection || collection == flowsCollection):
		return p.watchAgent(ctx, collection, mappings, flows)
	}
	connection, err := p.dialServer()
	if err != nil {
		return err
	}
	defer connection.Close()
	client := namewardv1.NewObservationServiceClient(connection)
	switch collection {
	case policiesCollection:
		return p.watchPolicies(ctx, connection)
	case nodesCollection:
		selected, err := filter.nodes()
		if err != nil {
			return err
		}
		stream, err := namewardv1.NewNodeServiceClient(connection).WatchNodes(ctx, &namewardv1.WatchNodesRequest{Filter: selected})
		return follow(ctx, p, stream, err, nodeLines(), p.nodeChanges())
	case flowsCollection:
		stream, err := client.WatchFlowEvents(ctx, &namewardv1.WatchFlowEventsRequest{Filter: flows})
		return follow(ctx, p, stream, err, flowLines(), func(response *namewardv1.WatchFlowEventsResponse) *change {
			return p.flowChange(response.GetFlowEvent())
		})
	}
	stream, err := client.WatchMappings(ctx, &namewardv1.WatchMappingsRequest{Filter: mappings})
	return follow(ctx, p, stream, err, mappingLines(), p.mappingChange)
}

func mappingLines() *lineTable {
	return &lineTable{
		header: []string{"CHANGE", "DOMAIN", "ADDRESS", "NODE", "CLIENT", "EXPIRES"}, widths: []int{6, 40, 15, 16, 15},
	}
}

// watchAgent watches what one node sees, at its agent.
func (p *program) watchAgent(ctx context.Context, collection string, mappings *namewardv1.MappingFilter, flows *namewardv1.FlowEventFilter) error {
	connection, err := p.dialAgent()
	if err != nil {
		return err
	}
	defer connection.Close()
	request := &agentv1.WatchEventsRequest{
		Kinds: []agentv1.WatchEventsRequest_Kind{agentv1.WatchEventsRequest_MAPPING}, MappingFilter: mappings, FlowEventFilter: flows,
	}
	lines := mappingLines()
	if collection == flowsCollection {
		request.Kinds[0], lines = agentv1.WatchEventsRequest_FLOW_EVENT, flowLines()
	}
	stream, err := agentv1.NewLocalServiceClient(connection).WatchEvents(ctx, request)
	return follow(ctx, p, stream, err, lines, func(response *agentv1.WatchEventsResponse) *change {
		if mapping := response.GetMapping(); mapping != nil {
			return p.mappingChange(&namewardv1.WatchMappingsResponse{Change: namewardv1.WatchMappingsResponse_PUT, Mapping: mapping})
		}
		return p.flowChange(response.GetFlowEvent())
	})
}

var errWatchEnded = errors.New("the watch was ended by the other side")

// change is what one response of a watch tells.
type change struct {
	kind   string        // PUT or DELETE
	object proto.Message // what it happened to
	row    []cell
}

// follow prints each change of a stream until the operator has seen enough. tell returns nil for a
// response that is no change: the one that ends the snapshot.
func follow[R any](ctx context.Context, p *program, stream grpc.ServerStreamingClient[R], err error, lines *lineTable,
	tell func(*R) *change,
) error {
	for printed := 0; err == nil; {
		var response *R
		if response, err = stream.Recv(); err != nil {
			break
		}
		if told := tell(response); told != nil {
			err = p.printChange(told, printed, lines)
			printed++
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return errWatchEnded
	}
	return err
}

// printChange prints one change at once: whoever reads a watch waits for it.
func (p *program) printChange(told *change, printed int, lines *lineTable) error {
	if !p.options.output.structured() {
		return p.print(lines.line(p.painter(), told.row))
	}
	encoded, err := told.encode()
	if err != nil {
		return err
	}
	if p.options.output == formatJSON {
		return p.print(string(encoded) + "\n")
	}
	if printed > 0 {
		if err := p.print("---\n"); err != nil {
			return err
		}
	}
	return p.printDocument(encoded)
}

// encode returns the object in protobuf JSON form with the key "change" before its own, which are never
// none: every object that can be watched has a name.
func (c *change) encode() ([]byte, error) {
	object, err := encode(c.object)
	if err != nil {
		return nil, err
	}
	return append([]byte(`{"change":"`+c.kind+`",`), object[1:]...), nil
}

// lineTable prints rows one by one, in columns that grow when a value needs it.
type lineTable struct {
	header  []string
	widths  []int
	started bool
}

func (l *lineTable) line(paint painter, row []cell) string {
	t := &table{minimum: l.widths}
	if !l.started {
		t.header = l.header
		l.started = true
	}
	t.add(row...)
	l.widths = t.widths()
	return t.render(paint)
}

func nodeLines() *lineTable {
	return &lineTable{header: []string{"CHANGE", "NAME", "STATE", "WANTED", "APPLIED", "LABELS"}, widths: []int{6, 24, 12, 6, 7}}
}

// nodeChanges tells of nodes. A table has a line only where one of its columns changed: nodes report every few seconds.
func (p *program) nodeChanges() func(*namewardv1.WatchNodesResponse) *change {
	shown := map[string]string{}
	return func(response *namewardv1.WatchNodesResponse) *change {
		node := response.GetNode()
		status := node.GetStatus()
		told := &change{kind: response.GetChange().String(), object: node}
		switch response.GetChange() {
		case namewardv1.WatchNodesResponse_PUT:
			told.row = []cell{
				{"PUT", styleGood},
				plain(node.GetName()), stateCell(status),
				plain(revisionText(status.GetWantedRevision())), plain(revisionText(status.GetAppliedRevision())),
				plain(labelsText(node.GetLabels(), none)),
			}
		case namewardv1.WatchNodesResponse_DELETE:
			told.row = []cell{{"DELETE", styleBad}, plain(node.GetName())}
		case namewardv1.WatchNodesResponse_CHANGE_UNSPECIFIED:
			return nil
		}
		row := fmt.Sprint(told.row)
		if !p.options.output.structured() && shown[node.GetName()] == row {
			return nil
		}
		shown[node.GetName()] = row
		return told
	}
}

func policyChange(response *namewardv1.WatchPoliciesResponse) *change {
	policy := response.GetPolicy()
	told := &change{kind: response.GetChange().String(), object: policy}
	switch response.GetChange() {
	case namewardv1.WatchPoliciesResponse_PUT:
		told.row = []cell{
			{"PUT", styleGood},
			plain(policy.GetName()), modeCell(policy.GetMode()),
			plain(fmt.Sprint(policy.GetPriority())), plain(strconv.Itoa(len(policy.GetRules()))),
		}
	case namewardv1.WatchPoliciesResponse_DELETE:
		told.row = []cell{{"DELETE", styleBad}, plain(policy.GetName())}
	case namewardv1.WatchPoliciesResponse_CHANGE_UNSPECIFIED:
		return nil
	}
	return told
}

func (p *program) mappingChange(response *namewardv1.WatchMappingsResponse) *change {
	cells := p.mappingCells(response.GetMapping())
	told := &change{kind: response.GetChange().String(), object: response.GetMapping()}
	switch response.GetChange() {
	case namewardv1.WatchMappingsResponse_PUT:
		told.row = append([]cell{{"PUT", styleGood}}, cells...)
	case namewardv1.WatchMappingsResponse_DELETE:
		// The expiry of what has ended says nothing.
		told.row = append([]cell{{"DELETE", styleFaint}}, cells[:len(cells)-1]...)
	case namewardv1.WatchMappingsResponse_CHANGE_UNSPECIFIED:
		return nil
	}
	return told
}
