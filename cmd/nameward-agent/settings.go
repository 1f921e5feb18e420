package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nameward/nameward/cmd/settings"
	"github.com/nameward/nameward/dataplane"
)

// bind declares the flags that all commands share.
func (p *program) bind(flags *pflag.FlagSet) {
	c := &p.cfg
	flags.String(settings.ConfigFlag, "", "YAML file with values for the flags")
	flags.StringSliceVar(&c.Servers, "server", nil, "policy server, HOST:PORT; repeatable: each node has its own order of them, the same at each start")
	flags.BoolVar(&c.Insecure, "insecure", false, "talk to the policy server in plain text, on loopback alone")
	c.TLS.BindClient(flags)
	flags.StringVar(&c.NodeName, "node-name", "", "name of this node (default: that of its certificate, else the host name)")
	flags.StringToStringVar(&c.Labels, "label", nil, "label KEY=VALUE of this node, by which policies select it; repeatable")
	flags.StringVar(&c.StateDir, "state-dir", c.StateDir, "directory of what must survive the process")
	flags.StringVar(&c.BPFDir, "bpf-dir", c.BPFDir, "directory of the pins, on a bpf file system")
	flags.StringVar(&c.Socket, "socket", c.Socket, "Unix socket of the local service")
	flags.StringSliceVar(&c.TrustedResolvers, "trusted-resolver", nil, "DNS server whose answers count, ADDR[:PORT]; repeatable (default: those of /etc/resolv.conf)")
	flags.DurationVar(&c.MinTTL, "min-ttl", c.MinTTL, "a name keeps its addresses at least so long")
	flags.DurationVar(&c.MaxTTL, "max-ttl", c.MaxTTL, "a name keeps its addresses at most so long")
	flags.DurationVar(&c.TTLGrace, "ttl-grace", c.TTLGrace, "and so much longer, since applications keep them too")
	flags.DurationVar(&c.DNSQueryTimeout, "dns-query-timeout", c.DNSQueryTimeout, "how long a question waits for its answer")
	flags.Uint32Var(&c.MaxMappings, "max-mappings", c.MaxMappings, "live mappings that the node remembers")
	flags.Uint32Var(&c.MaxAddressesPerName, "max-addresses-per-name", c.MaxAddressesPerName, "addresses that it remembers of one name")
	flags.Uint32Var(&c.MaxQueries, "max-queries", c.MaxQueries, "outstanding DNS questions that it remembers")
	flags.StringVar(&c.IPTables, "iptables", c.IPTables, "backend: auto, nft or legacy")
	flags.Uint32Var(&c.Mark, "mark", c.Mark, "the one bit of the packet mark that the agent may use")
	flags.Lookup("mark").DefValue = dataplane.FormatMark(c.Mark)
	flags.StringVar(&c.AllowedTarget, "allowed-target", c.AllowedTarget, "what happens to an allowed connection: RETURN to the node's other rules, or ACCEPT past them")
	flags.StringVar(&c.DeniedTarget, "denied-target", c.DeniedTarget, "what happens to a denied connection: REJECT or DROP")
	flags.StringVar(&c.BeforeFirstRuleSet, "before-first-rule-set", c.BeforeFirstRuleSet, "what happens on a node that never had a rule set: ALLOW, or DENY all but what is always allowed")
	flags.StringVar(&c.MetricsListen, "metrics-listen", c.MetricsListen, "address of the Prometheus metrics, HOST:PORT; empty for none")
	flags.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
	flags.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")
}

// complete fills the flags that the command line left open from the environment, then from the file.
func (p *program) complete(command *cobra.Command) error {
	err := settings.Complete(command.Root().PersistentFlags(), settings.Source{LookupEnv: p.lookupEnv, ReadFile: p.readFile})
	if err != nil {
		return usageError{err}
	}
	return nil
}
