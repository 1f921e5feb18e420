package main

import (
	"strconv"

	"github.com/spf13/cobra"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

func (p *program) statusCommand() *cobra.Command {
	command := &cobra.Command{
		Use:     "status --agent SOCKET",
		Short:   "Show how a node's agent does",
		Example: "  namewardctl status --agent /run/nameward/agent.sock",
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			answer, err := p.agentStatus(command.Context())
			if err != nil {
				return err
			}
			if p.options.output.structured() {
				return printMessages(p, []*agentv1.GetStatusResponse{answer})
			}
			return p.print(p.describeAgent(answer))
		},
	}
	p.options.bindOutput(command)
	return command
}

func (p *program) describeAgent(answer *agentv1.GetStatusResponse) string {
	t := &table{}
	connection := "not connected"
	if answer.GetServer() != "" {
		connection = "connected to " + answer.GetServer()
	}
	if answer.GetConnectionChangeTime() != nil {
		connection += " since " + p.moment(answer.GetConnectionChangeTime())
	}
	t.addPlain("Server", connection)
	t.addPlain("Started", p.moment(answer.GetStartTime()))
	t.addPlain("Mappings", strconv.FormatUint(answer.GetLiveMappings(), 10))
	if len(answer.GetDegraded()) == 0 {
		t.add(plain("Faults"), cell{"none", styleGood})
	}
	title := "Faults"
	for _, fault := range answer.GetDegraded() {
		t.add(plain(title), cell{fault, styleBad})
		title = ""
	}
	return t.render(p.painter()) + "\n" + p.describeNode(answer.GetNode())
}
