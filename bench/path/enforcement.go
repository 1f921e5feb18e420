package path

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane"
	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/observe"
)

// An enforcement is the agent's own code at work on a node, with the capacities that it has by default.
type enforcement struct {
	datapath *datapath.Datapath
	table    *observe.Table
	programs netfilter.Programs
}

// maxPatterns is what the policy server grants a node at most.
const maxPatterns = 131_072

func openDatapath(pins, state string) (*enforcement, error) {
	defaults := dataplane.DefaultConfig()
	e := &enforcement{table: observe.NewTable(0, int(defaults.MaxAddressesPerName))}
	var err error
	e.datapath, err = datapath.Open(datapath.Config{
		PinDir: pins, StateDir: state,
		MinTTL: defaults.MinTTL, MaxTTL: defaults.MaxTTL, TTLGrace: defaults.TTLGrace, QueryTimeout: defaults.DNSQueryTimeout,
		MaxMappings: defaults.MaxMappings, MaxAddressesPerName: defaults.MaxAddressesPerName, MaxQueries: defaults.MaxQueries,
		MaxPatterns: maxPatterns,
	}, e.table, observe.NewFlows(0))
	if err != nil {
		return nil, fmt.Errorf("open datapath: %w", err)
	}
	e.programs = netfilter.Programs(e.datapath.Programs())
	return e, nil
}

// enforce puts rules in force on a node where names had been resolved before.
func enforce(ctx context.Context, n *node, backend string, rules *ruleset.RuleSet, resolved []observe.Answer) (*enforcement, error) {
	var e *enforcement
	if err := n.do(func() (err error) {
		e, err = openDatapath(filepath.Join(bpfDir, "nameward"), stateDir)
		return err
	}); err != nil {
		return nil, err
	}
	n.atEnd(func() { _ = e.datapath.Close() })
	for _, answer := range resolved {
		e.table.Record(answer)
	}
	if err := n.do(func() error {
		return errors.Join(e.datapath.SetEndpoints(resolvers, nil), e.datapath.Apply(ctx, rules))
	}); err != nil {
		return nil, err
	}
	return e, hook(ctx, n, backend, e.programs)
}

// clients are the addresses behind a node.
var clients = netip.MustParsePrefix("10.77.0.0/16")

// everyWorkload is all that the packets come from.
var everyWorkload = []ruleset.Workload{{CIDRs: []netip.Prefix{clients}}, {Host: true}}

// services are where connections go.
var services = netip.MustParsePrefix("198.18.0.0/15")

// addresses gives the first addresses of a prefix, but for that of the prefix itself.
func addresses(prefix netip.Prefix, count int) []netip.Addr {
	list := make([]netip.Addr, 0, count)
	for address := prefix.Addr().Next(); len(list) < count; address = address.Next() {
		list = append(list, address)
	}
	return list
}

func setDomain(i int) string { return fmt.Sprintf("s%05d.example", i) }

// allowSets is a policy that allows so many domain sets, by a rule each.
func allowSets(count int, workloads []ruleset.Workload) (*ruleset.RuleSet, error) {
	rules := &ruleset.RuleSet{}
	policy := ruleset.Policy{Name: "policies/sets", Workloads: workloads}
	for i := range count {
		pattern, err := domain.ParsePattern("*." + setDomain(i))
		if err != nil {
			return nil, err
		}
		set := ruleset.NewDomainSet(fmt.Sprintf("domainSets/s%05d", i), []domain.Pattern{pattern})
		rules.DomainSets = append(rules.DomainSets, set)
		policy.Rules = append(policy.Rules, ruleset.Rule{DomainSets: []string{set.Name}})
	}
	rules.Policies = []ruleset.Policy{policy}
	return rules, nil
}

// resolveSets is what names of as many sets resolved to: one address each.
func resolveSets(addresses []netip.Addr) ([]observe.Answer, error) {
	now := time.Now()
	answers := make([]observe.Answer, 0, len(addresses))
	for i, address := range addresses {
		name, err := domain.ParseName("www." + setDomain(i))
		if err != nil {
			return nil, err
		}
		answers = append(answers, observe.Answer{
			Names: []domain.Name{name}, Question: 1, Addresses: []observe.Address{{Address: address, Names: 1}},
			LearnedAt: now, ExpiresAt: now.Add(12 * time.Hour),
		})
	}
	return answers, nil
}
