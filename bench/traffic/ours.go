package traffic

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// setUpOurs runs server and agent on the lab's node, with a policy of all patterns and the names of the bench.
func setUpOurs(ctx context.Context, n *network, patterns []string) error {
	if _, err := n.StartServer(ctx); err != nil {
		return err
	}
	if _, err := n.StartAgent(ctx, "--trusted-resolver", resolver.String()); err != nil {
		return err
	}
	conn, err := n.DialServer()
	if err != nil {
		return fmt.Errorf("dial server: %w", err)
	}
	defer conn.Close() //nolint:errcheck // what was asked is answered
	stream, err := namewardv1.NewDomainSetServiceClient(conn).ReplaceDomains(ctx)
	if err != nil {
		return fmt.Errorf("write domain set: %w", err)
	}
	const set = "domainSets/bench"
	requests := []*namewardv1.ReplaceDomainsRequest{{Name: set, AllowMissing: true, Domains: []string{"*." + freshZone, "*." + sharedZone}}}
	for part := range slices.Chunk(patterns, 10_000) {
		requests = append(requests, &namewardv1.ReplaceDomainsRequest{Domains: part})
	}
	for _, request := range requests {
		if err := stream.Send(request); err != nil {
			break // CloseAndRecv says why
		}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return fmt.Errorf("write domain set: %w", err)
	}
	_, err = namewardv1.NewPolicyServiceClient(conn).UpdatePolicy(ctx, &namewardv1.UpdatePolicyRequest{
		AllowMissing: true, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"*"}},
		Policy: &namewardv1.Policy{
			Name:         "policies/bench",
			NodeSelector: &namewardv1.NodeSelector{MatchLabels: map[string]string{"role": "lab"}},
			Workloads:    []*namewardv1.Workload{{Cidrs: []string{lab.ClientV4.String()}}},
			Rules: []*namewardv1.Rule{{
				Action: namewardv1.Rule_ALLOW, DomainSets: []string{set},
				Ports: []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: servicePort}},
			}},
		},
	})
	if err != nil {
		return fmt.Errorf("write policy: %w", err)
	}
	return lab.Await(ctx, func() error { return n.Current(ctx, conn) }, nil)
}

// setUpEmptyRules gives the node the very rules that the agent wrote, with a program in each that does
// nothing.
func setUpEmptyRules(ctx context.Context, n *network, w *way) error {
	program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "empty", Type: ebpf.SocketFilter, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		return fmt.Errorf("load empty program: %w", err)
	}
	defer program.Close() //nolint:errcheck // the pin holds it
	pin := filepath.Join(n.BPFFS, "empty")
	if err := program.Pin(pin); err != nil {
		return fmt.Errorf("pin empty program: %w", err)
	}
	for _, table := range []string{"mangle", "filter"} {
		rules, err := n.Node.Command(ctx, "iptables-save", "-t", table).Output()
		if err != nil {
			return fmt.Errorf("read rules: %w", err)
		}
		if !strings.Contains(string(rules), "NAMEWARD") {
			return fmt.Errorf("read rules: the agent has none in %s", table)
		}
		if err := w.onNode(ctx, pinOption.ReplaceAllString(string(rules), "--object-pinned "+pin+" "), "iptables-restore"); err != nil {
			return err
		}
	}
	return nil
}

var pinOption = regexp.MustCompile(`--object-pinned \S+ `)
