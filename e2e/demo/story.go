package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/nameward/nameward/e2e/lab"
)

// policy is what the demo applies first, and changed what it applies later.
const policy = `name: policies/shop
nodeSelector: {matchLabels: {role: lab}}
workloads: [{cidrs: ["10.91.1.0/24", "fd91:1::/64"]}]
rules:
  - action: ALLOW
    domains: ["api.example", "*.shop.example", "*.fresh.example"]
    ports: [{protocol: TCP, port: 443}]
`

var changed = strings.Replace(policy, `"api.example"`, `"api.example", "late.example"`, 1)

// freshNames is how many names are asked for the first time while the agent is dead.
const freshNames = 500

// story is the demo: a lab and what happens in it.
type story struct {
	*lab.Lab
	ctx     context.Context //nolint:containedctx // one story, one context
	backend string
	agent   *lab.Process
	late    netip.Addr
}

type chapter struct {
	title string
	tell  func() error
}

func (s *story) chapters() []chapter {
	return []chapter{
		{"Start a policy server and an agent on the node", s.start},
		{"Without a policy, everything is open", s.open},
		{"Apply a policy that names domains", s.apply},
		{"What it allows opens, with the first packet; the rest is refused at once", s.judge},
		{"The node reports what is resolved, as it is", s.mappings},
		{"Ask why", s.explain},
		{"Change the policy: names that were resolved before open, without being asked again", s.change},
		{"Kill the agent: the kernel goes on enforcing, and learning fresh names", s.kill},
		{"Start it again: it picks up where it was", s.restart},
		{"Clean up", s.cleanup},
	}
}

func (s *story) start() error {
	if _, err := s.StartServer(s.ctx); err != nil {
		return err
	}
	good("nameward-server serves on %s", lab.ServerAddress)
	return s.startAgent()
}

func (s *story) startAgent() error {
	agent, err := s.StartAgent(s.ctx, "--iptables", s.backend)
	if err != nil {
		return err
	}
	s.agent = agent
	good("nameward-agent has its programs in the kernel, trusts the resolvers %s and %s, and is connected", lab.ResolverV4, lab.ResolverV6)
	return nil
}

// visit resolves a name from the client, connects at once and says what came of it.
func (s *story) visit(resolver netip.Addr, name string, want bool) error {
	addresses, err := s.Resolve(resolver, name)
	if err != nil {
		return fmt.Errorf("resolve %s: %w", name, err)
	}
	return s.connect(addresses[0], name, want)
}

func (s *story) connect(address netip.Addr, name string, want bool) error {
	start := time.Now()
	err := s.Connect(address, lab.ServicePort)
	took := time.Since(start).Round(10 * time.Microsecond)
	switch {
	case err == nil && want:
		good("%-22s %-26s open     after %v", name, address, took)
	case lab.Refused(err) && !want:
		refused("%-22s %-26s refused  after %v", name, address, took)
	default:
		return fmt.Errorf("connect to %s (%s): got %w, want open: %v", name, address, orNothing(err), want)
	}
	return nil
}

func orNothing(err error) error {
	if err == nil {
		return errors.New("a connection")
	}
	return err
}

func (s *story) visits(want bool, names ...string) error {
	for _, name := range names {
		for _, resolver := range s.Resolvers() {
			if err := s.visit(resolver, name, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *story) open() error { return s.visits(true, "api.example", "evil.example") }

// ctl runs namewardctl on the node and shows both.
func (s *story) ctl(input string, args ...string) error {
	quote("$ namewardctl " + strings.Join(args, " "))
	cmd := s.Node.Command(s.ctx, s.Program("namewardctl"), append([]string{"--insecure", "--server", lab.ServerAddress}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	quote(string(out))
	// explain exits with 3 for DENY: that is an answer.
	if err != nil && (args[0] != "explain" || cmd.ProcessState.ExitCode() != 3) {
		return err
	}
	return nil
}

func (s *story) apply() error {
	quote(policy)
	if err := s.ctl(policy, "apply", "-f", "-"); err != nil {
		return err
	}
	return s.awaitCurrent()
}

func (s *story) awaitCurrent() error {
	conn, err := s.DialServer()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // asked until it answers
	return lab.Await(s.ctx, func() error { return s.Current(s.ctx, conn) }, nil)
}

func (s *story) judge() error {
	if err := s.visits(true, "api.example", "www.shop.example"); err != nil {
		return err
	}
	say("(www.shop.example is an alias: CNAME edge.cdn.example, CNAME pool.cdn.example.)")
	if err := s.visits(false, "evil.example"); err != nil {
		return err
	}
	if err := s.connect(netip.MustParseAddr("198.18.210.1"), "(no name)", false); err != nil {
		return err
	}
	start := time.Now()
	for i := range freshNames {
		addresses, err := s.Resolve(s.Resolvers()[i%2], lab.FreshName(i))
		if err != nil {
			return err
		}
		if err := s.Connect(addresses[0], lab.ServicePort); err != nil {
			return fmt.Errorf("connect to %s right after its answer: %w", lab.FreshName(i), err)
		}
	}
	good("%d names never asked before, each resolved and connected to at once: 0 first packets lost (%v each)",
		freshNames, (time.Since(start) / freshNames).Round(time.Microsecond))
	return nil
}

// mappings watches the mappings of some names that the client resolves meanwhile.
func (s *story) mappings() error {
	const args = "watch mappings --domain *.wild.example"
	quote("$ namewardctl " + args + " &")
	ctx, stop := context.WithCancel(s.ctx)
	defer stop()
	watch := s.Node.Command(ctx, s.Program("namewardctl"), append([]string{"--insecure"}, strings.Fields(args)...)...)
	lines, err := watch.StdoutPipe()
	if err != nil {
		return err
	}
	if err := watch.Start(); err != nil {
		return err
	}
	go func() {
		for i, name := range []string{"one.wild.example", "two.wild.example", "three.wild.example"} {
			_, _ = s.Resolve(s.Resolvers()[i%2], name) // a name that is not resolved is missed below
		}
	}()
	seen := bufio.NewScanner(lines)
	for shown := 0; shown < 3; {
		if !seen.Scan() {
			return fmt.Errorf("watch ended after %d mappings: %w", shown, orNothing(seen.Err()))
		}
		quote(seen.Text())
		if strings.Contains(seen.Text(), ".wild.example") {
			shown++
		}
	}
	stop()
	_ = watch.Wait() // ended by us
	return s.ctl("", "get", "mappings", "--domain", "*.shop.example")
}

func (s *story) explain() error {
	if err := s.ctl("", "explain", "--node", lab.NodeName, "--workload", lab.ClientV4.String(), "--destination", "www.shop.example", "--protocol", "TCP", "--port", "443"); err != nil {
		return err
	}
	return s.ctl("", "explain", "--node", lab.NodeName, "--workload", lab.ClientV4.String(), "--destination", "evil.example", "--protocol", "TCP", "--port", "443")
}

func (s *story) change() error {
	addresses, err := s.Resolve(lab.ResolverV4, "late.example")
	if err != nil {
		return err
	}
	s.late = addresses[0]
	if err := s.connect(s.late, "late.example", false); err != nil {
		return err
	}
	if err := s.ctl(changed, "apply", "-f", "-"); err != nil {
		return err
	}
	if err := s.awaitCurrent(); err != nil {
		return err
	}
	return s.connect(s.late, "late.example", true)
}

func (s *story) kill() error {
	if err := s.agent.Kill(); err != nil {
		return err
	}
	refused("nameward-agent is dead (kill -9)")
	for i := freshNames; i < 2*freshNames; i++ {
		addresses, err := s.Resolve(s.Resolvers()[i%2], lab.FreshName(i))
		if err != nil {
			return err
		}
		if err := s.Connect(addresses[0], lab.ServicePort); err != nil {
			return fmt.Errorf("connect to %s right after its answer: %w", lab.FreshName(i), err)
		}
	}
	good("%d more fresh names: 0 first packets lost", freshNames)
	return s.visits(false, "evil.example")
}

func (s *story) restart() error {
	if err := s.startAgent(); err != nil {
		return err
	}
	if err := s.connect(s.late, "late.example", true); err != nil {
		return err
	}
	say("What the kernel learned meanwhile is upstream now:")
	return lab.Await(s.ctx, func() error {
		out, err := s.Node.Command(s.ctx, s.Program("namewardctl"), "--insecure", "get", "mappings", "--domain", lab.FreshName(2*freshNames-1)).CombinedOutput()
		if err != nil || !strings.Contains(string(out), lab.FreshName(2*freshNames-1)) {
			return fmt.Errorf("mapping is not upstream: %w: %s", orNothing(err), out)
		}
		quote(string(out))
		return nil
	}, nil)
}

func (s *story) cleanup() error {
	if err := s.agent.Stop(); err != nil {
		return err
	}
	args := append([]string{"cleanup"}, s.AgentFlags()...)
	quote("$ nameward-agent cleanup")
	out, err := s.Node.Command(s.ctx, s.Program("nameward-agent"), args...).CombinedOutput()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	const head = 3
	if len(lines) > 2*head {
		between := fmt.Sprintf("… %d lines more …", len(lines)-2*head)
		lines = append(append(lines[:head:head], between), lines[len(lines)-head:]...)
	}
	quote(strings.Join(lines, "\n"))
	if err != nil {
		return err
	}
	return s.visits(true, "evil.example")
}
