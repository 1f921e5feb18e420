package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// question is the connection that explain asks about, as the command line has it.
type question struct {
	node, workload, incoming, destination, protocol string
	labels                                          map[string]string
	port, sourcePort                                uint16
}

func (p *program) explainCommand() *cobra.Command {
	var q question
	command := &cobra.Command{
		Use:   "explain --node NODE --workload WORKLOAD --destination NAME|ADDRESS --protocol PROTOCOL --port PORT",
		Short: "Say what happens to a connection, and why",
		Long: `explain evaluates a connection under the rules that a node has, with the mappings that the node
reported, and prints the verdict, the rule that decides, why each other rule does not match, and the
mappings through which it was judged. A name is judged for each of its addresses, and allowed when all
of them are. It exits with 0 for ALLOW and 3 for DENY.`,
		Example: `  namewardctl explain --node lab --workload 10.1.0.7 --destination api.example.com --protocol TCP --port 443
  namewardctl explain --label role=web --workload uid:1000,unit:web.service --destination api.example.com --port 443
  namewardctl explain --agent /run/nameward/agent.sock --workload host --destination 192.0.2.7 --port 443`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			request, err := q.request(p.options.agent != "")
			if err != nil {
				return err
			}
			answer, err := p.explainConnection(command.Context(), request)
			if err != nil {
				return err
			}
			if err := p.printExplanation(request, answer); err != nil {
				return err
			}
			return verdictError(answer.GetVerdict())
		},
	}
	flags := command.Flags()
	flags.StringVar(&q.node, "node", "", "node whose rules decide")
	flags.StringToStringVar(&q.labels, "label", nil, "instead of a node: labels that one could have, key=value (repeatable)")
	flags.StringVar(&q.workload, "workload", "host", "who connects: an address, host, or a process by uid:N, unit:NAME and cgroup:/PATH, with commas between")
	flags.StringVar(&q.incoming, "interface", "", "interface at which the node receives the connection, if policies select by it")
	flags.StringVar(&q.destination, "destination", "", "domain name or address that it connects to")
	flags.StringVar(&q.protocol, "protocol", "TCP", "TCP, UDP, SCTP or ICMP")
	flags.Uint16Var(&q.port, "port", 0, "destination port; ICMP has none")
	flags.Uint16Var(&q.sourcePort, "source-port", 0, "port that it comes from, which tells a DHCP client")
	p.completeFlag(command, "node", nodesCollection)
	p.completeValues(command, "protocol", "TCP", "UDP", "SCTP", "ICMP")
	p.options.bindOutput(command)
	return command
}

// request checks the whole question. An agent answers for its own node only.
func (q *question) request(ofAgent bool) (*namewardv1.ExplainConnectionRequest, error) {
	request := &namewardv1.ExplainConnectionRequest{
		Labels: q.labels, Workload: q.workload, Interface: q.incoming, Destination: q.destination,
		Port: uint32(q.port), SourcePort: uint32(q.sourcePort),
	}
	var errs []error
	switch {
	case q.node != "" && len(q.labels) > 0:
		errs = append(errs, usagef("--node and --label: give one of them"))
	case q.node != "":
		name, err := inCollection(nodesCollection, q.node)
		if err != nil {
			errs = append(errs, usagef("--node: %w", err))
		}
		request.Node = name
	case len(q.labels) == 0 && !ofAgent:
		errs = append(errs, usagef("--node: must be set"))
	}
	if q.destination == "" {
		errs = append(errs, usagef("--destination: must be set"))
	}
	number, known := namewardv1.Protocol_value[strings.ToUpper(q.protocol)]
	request.Protocol = namewardv1.Protocol(number)
	switch {
	case !known || request.Protocol == namewardv1.Protocol_PROTOCOL_UNSPECIFIED:
		errs = append(errs, usagef("--protocol: %q is not TCP, UDP, SCTP or ICMP", q.protocol))
	case request.Protocol == namewardv1.Protocol_ICMP && q.port != 0:
		errs = append(errs, usagef("--port: ICMP has no ports"))
	case request.Protocol != namewardv1.Protocol_ICMP && q.port == 0:
		errs = append(errs, usagef("--port: must be set for %s", request.Protocol))
	}
	return request, errors.Join(errs...)
}

func (p *program) explainConnection(ctx context.Context, request *namewardv1.ExplainConnectionRequest) (*namewardv1.ExplainConnectionResponse, error) {
	if p.options.agent != "" {
		connection, err := p.dialAgent()
		if err != nil {
			return nil, err
		}
		defer connection.Close()
		return agentv1.NewLocalServiceClient(connection).ExplainConnection(ctx, request)
	}
	connection, err := p.dialServer()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	return namewardv1.NewNodeServiceClient(connection).ExplainConnection(ctx, request)
}

func verdictError(verdict namewardv1.Verdict) error {
	switch verdict {
	case namewardv1.Verdict_ALLOW:
		return nil
	case namewardv1.Verdict_DENY:
		return errDenied
	case namewardv1.Verdict_VERDICT_UNSPECIFIED:
	}
	return errors.New("the answer has no verdict")
}
