package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

func (p *program) ruleSetCommand() *cobra.Command {
	var node string
	var labels map[string]string
	command := &cobra.Command{
		Use:   "ruleset --node NODE",
		Short: "Show the rule set of a node",
		Long: `ruleset shows the policies and domain sets that a node should have, in order of evaluation, and whether
it has them in force; with --label those of a node that need not exist; with --agent what the node itself
has in force.`,
		Example: `  namewardctl ruleset --node lab
  namewardctl ruleset --label role=web -o yaml
  namewardctl ruleset --agent /run/nameward/agent.sock`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			request, err := ruleSetRequest(node, labels, p.options.agent != "")
			if err != nil {
				return err
			}
			answer, err := p.ruleSet(command.Context(), request)
			if err != nil {
				return err
			}
			if p.options.output.structured() {
				return printMessages(p, []proto.Message{answer})
			}
			return p.print(p.describeRuleSet(answer))
		},
	}
	command.Flags().StringVar(&node, "node", "", "node that should have it")
	command.Flags().StringToStringVar(&labels, "label", nil, "instead of a node: labels that one could have, key=value (repeatable)")
	p.completeFlag(command, "node", nodesCollection)
	p.options.bindOutput(command)
	return command
}

func ruleSetRequest(node string, labels map[string]string, ofAgent bool) (*namewardv1.GetRuleSetRequest, error) {
	request := &namewardv1.GetRuleSetRequest{Labels: labels}
	switch {
	case node != "" && len(labels) > 0:
		return nil, usagef("--node and --label: give one of them")
	case node != "":
		name, err := inCollection(nodesCollection, node)
		if err != nil {
			return nil, usagef("--node: %w", err)
		}
		request.Node = name
	case len(labels) == 0 && !ofAgent:
		return nil, usagef("--node: must be set")
	}
	return request, nil
}

func (p *program) ruleSet(ctx context.Context, request *namewardv1.GetRuleSetRequest) (*namewardv1.GetRuleSetResponse, error) {
	if p.options.agent != "" {
		connection, err := p.dialAgent()
		if err != nil {
			return nil, err
		}
		defer connection.Close()
		return agentv1.NewLocalServiceClient(connection).GetRuleSet(ctx, request)
	}
	connection, err := p.dialServer()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	return namewardv1.NewNodeServiceClient(connection).GetRuleSet(ctx, request)
}

func (p *program) describeRuleSet(answer *namewardv1.GetRuleSetResponse) string {
	t := &table{}
	t.addPlain("Rule set", answer.GetRuleSetId())
	t.addPlain("Revision", revisionText(answer.GetRevision()))
	t.addPlain("In force", yesNo(answer.GetInForce()))
	if applied := answer.GetAppliedRuleSetId(); applied != "" && !answer.GetInForce() {
		t.addPlain("Instead", applied+" of revision "+revisionText(answer.GetAppliedRevision()))
	}
	if answer.GetLastError() != "" {
		t.add(plain("Last error"), cell{answer.GetLastError(), styleBad})
	}
	text := t.render(p.painter())
	policies := &table{header: []string{"POLICY", "PRIORITY", "MODE", "WORKLOADS", "RULES"}}
	for _, policy := range answer.GetPolicies() {
		policies.add(plain(policy.GetName()), plain(strconv.Itoa(int(policy.GetPriority()))), modeCell(policy.GetMode()),
			plain(strings.Join(abridge(workloadTexts(policy)), " ")), plain(strconv.Itoa(len(policy.GetRules()))))
	}
	if len(policies.rows) == 0 {
		return text + "\nNo policies: what the node connects to is not touched.\n"
	}
	text += "\n" + policies.render(p.painter())
	sets := &table{header: []string{"DOMAIN SET", "DOMAINS"}}
	for _, set := range answer.GetDomainSets() {
		sets.addPlain(set.GetName(), strconv.Itoa(int(set.GetDomainCount())))
	}
	if len(sets.rows) > 0 {
		text += "\n" + sets.render(p.painter())
	}
	return text
}
