package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// listNodes reads the named nodes, or those that the filter selects when no name is given. An agent knows only its own.
func (p *program) listNodes(ctx context.Context, names []string, filter filter) ([]*namewardv1.Node, error) {
	selected, err := filter.nodes()
	switch {
	case err != nil:
		return nil, err
	case p.options.agent != "" && selected != nil:
		return nil, usagef("--agent: knows its own node alone: there is nothing to select")
	case p.options.agent != "":
		return p.listAgentNode(ctx, names)
	}
	connection, err := p.dialServer()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	client := namewardv1.NewNodeServiceClient(connection)
	if len(names) > 0 {
		return eachName(names, func(name string) (*namewardv1.Node, error) {
			return client.GetNode(ctx, &namewardv1.GetNodeRequest{Name: name})
		})
	}
	return allPages(func(token string) ([]*namewardv1.Node, string, error) {
		page, err := client.ListNodes(ctx, &namewardv1.ListNodesRequest{PageSize: pageSize, PageToken: token, Filter: selected})
		p.sayIncomplete(page.GetUnreachable())
		return page.GetNodes(), page.GetNextPageToken(), err
	})
}

func (p *program) listAgentNode(ctx context.Context, names []string) ([]*namewardv1.Node, error) {
	answer, err := p.agentStatus(ctx)
	if err != nil {
		return nil, err
	}
	own := []*namewardv1.Node{answer.GetNode()}
	if len(names) == 0 {
		return own, nil
	}
	return eachName(names, func(name string) (*namewardv1.Node, error) {
		if name != answer.GetNode().GetName() {
			return nil, fmt.Errorf("this agent is %s: others are known to the policy server", answer.GetNode().GetName())
		}
		return answer.GetNode(), nil
	})
}

func (p *program) agentStatus(ctx context.Context) (*agentv1.GetStatusResponse, error) {
	connection, err := p.dialAgent()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	return agentv1.NewLocalServiceClient(connection).GetStatus(ctx, &agentv1.GetStatusRequest{})
}

// eachName reads resources one by one. It returns those that could be read with the faults of the others.
func eachName[T any](names []string, get func(name string) (T, error)) ([]T, error) {
	var (
		found []T
		errs  []error
	)
	for _, name := range names {
		item, err := get(name)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
			continue
		}
		found = append(found, item)
	}
	return found, errors.Join(errs...)
}

func (p *program) nodesTable(nodes []*namewardv1.Node) *table {
	wide := p.options.output == formatWide
	t := &table{header: []string{"NAME", "STATE", "WANTED", "APPLIED", "CONTACT", "LABELS"}}
	if wide {
		t.header = append(t.header, "AGENT", "KERNEL", "IPTABLES", "CERTIFICATE", "ERROR")
	}
	for _, node := range nodes {
		status := node.GetStatus()
		row := []cell{
			plain(node.GetName()), stateCell(status),
			plain(revisionText(status.GetWantedRevision())), plain(revisionText(status.GetAppliedRevision())),
			plain(p.ago(status.GetLastContactTime())), plain(labelsText(node.GetLabels(), none)),
		}
		if wide {
			row = append(row, plain(orNone(status.GetAgentVersion())), plain(orNone(status.GetKernel())),
				plain(orNone(status.GetIptablesBackend())), plain(p.left(status.GetCertificateExpireTime())), plain(orNone(status.GetLastError())))
		}
		t.add(row...)
	}
	return t
}

// stateCell sums a node up in the word that an operator acts on.
func stateCell(status *namewardv1.NodeStatus) cell {
	text := "current"
	switch {
	case status.GetLastError() != "":
		text = "failed"
	case !status.GetConnected():
		text = "disconnected"
	case status.GetAppliedRevision() < status.GetWantedRevision():
		text = "behind"
	case len(status.GetDegraded()) > 0:
		text = "degraded"
	}
	return cell{text, stateStyle(text)}
}

func stateStyle(state string) style {
	switch state {
	case "failed", "disconnected":
		return styleBad
	case "behind", "degraded":
		return styleWarning
	}
	return styleGood
}

func (p *program) describeNode(node *namewardv1.Node) string {
	status := node.GetStatus()
	t := &table{}
	t.addPlain("Name", node.GetName())
	t.add(plain("State"), stateCell(status))
	t.addPlain("Labels", labelsText(node.GetLabels(), none))
	t.addPlain("Connected", yesNo(status.GetConnected()))
	if server := status.GetServer(); server != "" {
		t.addPlain("Policy server", server)
	}
	t.addPlain("Last contact", p.moment(status.GetLastContactTime()))
	t.addPlain("Wanted", p.revisionMoment(status.GetWantedRevision(), status.GetWantedTime()))
	t.addPlain("Applied", p.revisionMoment(status.GetAppliedRevision(), status.GetAppliedTime()))
	t.addPlain("Rule set", orNone(status.GetRuleSetId()))
	if status.GetLastError() != "" {
		t.add(plain("Last error"), cell{status.GetLastError(), styleBad})
	} else {
		t.addPlain("Last error", none)
	}
	for _, fault := range status.GetDegraded() {
		t.add(plain("Degraded"), cell{fault, styleWarning})
	}
	t.addPlain("Agent", orNone(status.GetAgentVersion()))
	t.addPlain("Kernel", orNone(status.GetKernel()))
	t.addPlain("iptables", orNone(status.GetIptablesBackend()))
	t.addPlain("Certificate", p.endMoment(status.GetCertificateExpireTime()))
	t.addPlain("Resolvers", orNone(strings.Join(status.GetTrustedResolvers(), " ")))
	t.addPlain("Servers", orNone(strings.Join(status.GetPolicyServers(), " ")))
	addresses := strings.Join(status.GetAddresses(), " ")
	if status.GetMoreAddresses() {
		addresses += " and more"
	}
	t.addPlain("Addresses", orNone(addresses))
	text := t.render(p.painter())
	if len(status.GetCounters()) == 0 {
		return text
	}
	counters := &table{header: []string{"COUNTER", "VALUE"}}
	for _, name := range slices.Sorted(maps.Keys(status.GetCounters())) {
		counters.addPlain(name, strconv.FormatUint(status.GetCounters()[name], 10))
	}
	return text + "\n" + counters.render(p.painter())
}

func (p *program) revisionMoment(revision uint64, at *timestamppb.Timestamp) string {
	if revision == 0 {
		return none
	}
	return "revision " + strconv.FormatUint(revision, 10) + ", " + p.moment(at)
}

func revisionText(revision uint64) string {
	if revision == 0 {
		return none
	}
	return strconv.FormatUint(revision, 10)
}

func orNone(text string) string {
	if text == "" {
		return none
	}
	return text
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
