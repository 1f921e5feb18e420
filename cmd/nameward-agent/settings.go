package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"github.com/nameward/nameward/dataplane"
)

// bind declares the flags that all commands share.
func (p *program) bind(flags *pflag.FlagSet) {
	c := &p.cfg
	flags.StringVar(&p.configFile, "config", "", "YAML file with values for the flags")
	flags.StringSliceVar(&c.Servers, "server", nil, "policy server, HOST:PORT; repeatable, the first is tried first")
	flags.BoolVar(&c.Insecure, "insecure", false, "talk to the policy server in plain text")
	flags.StringVar(&c.NodeName, "node-name", "", "name of this node (default: the host name)")
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
	flags.StringVar(&c.AllowedTarget, "allowed-target", c.AllowedTarget, "what happens to an allowed connection: RETURN, to the node's other rules")
	flags.StringVar(&c.DeniedTarget, "denied-target", c.DeniedTarget, "what happens to a denied connection: REJECT or DROP")
	flags.StringVar(&c.MetricsListen, "metrics-listen", c.MetricsListen, "address of the Prometheus metrics, HOST:PORT; empty for none")
	flags.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
	flags.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")
}

// complete fills the flags that the command line left open from the environment, then from the file.
func (p *program) complete(command *cobra.Command) error {
	flags := command.Root().PersistentFlags()
	// The file's own name may come from the environment, so it goes first.
	if err := p.fromEnvironment(flags.Lookup("config")); err != nil {
		return usageError{err}
	}
	values, err := p.readConfig(flags)
	errs := []error{err}
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Name == "config" || flag.Changed {
			return
		}
		err := p.fromEnvironment(flag)
		if value, ok := values[flag.Name]; ok && err == nil && !flag.Changed {
			err = p.fromFile(flag, value)
		}
		errs = append(errs, err)
	})
	if err := errors.Join(errs...); err != nil {
		return usageError{err}
	}
	return nil
}

func (p *program) fromEnvironment(flag *pflag.Flag) error {
	if flag.Changed {
		return nil
	}
	variable := "NAMEWARD_" + strings.ReplaceAll(strings.ToUpper(flag.Name), "-", "_")
	value, ok := p.lookupEnv(variable)
	if !ok || value == "" {
		return nil
	}
	if err := flag.Value.Set(value); err != nil {
		return fmt.Errorf("%s: %q: %w", variable, value, err)
	}
	flag.Changed = true
	return nil
}

// fromFile sets a flag to a scalar, or a repeatable one to a list, or labels to a mapping.
func (p *program) fromFile(flag *pflag.Flag, value any) error {
	fault := func(err error) error { return fmt.Errorf("%s: %s: %w", p.configFile, flag.Name, err) }
	var texts []string
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			texts = append(texts, fmt.Sprint(element))
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			texts = append(texts, key+"="+fmt.Sprint(v[key]))
		}
	default:
		texts = []string{fmt.Sprint(value)}
	}
	repeatable := flag.Value.Type() == "stringSlice" || flag.Value.Type() == "stringToString"
	if len(texts) != 1 && !repeatable {
		return fault(errors.New("takes one value"))
	}
	for _, text := range texts {
		if err := flag.Value.Set(text); err != nil {
			return fault(fmt.Errorf("%q: %w", text, err))
		}
	}
	return nil
}

// readConfig reads the file that --config names, and refuses keys that are no flag by their name.
func (p *program) readConfig(flags *pflag.FlagSet) (map[string]any, error) {
	if p.configFile == "" {
		return nil, nil
	}
	data, err := p.readFile(p.configFile)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var values map[string]any
	// As a float64 a large number would be printed with an exponent, which no flag reads.
	exact := func(d *json.Decoder) *json.Decoder {
		d.UseNumber()
		return d
	}
	if err := yaml.UnmarshalStrict(data, &values, exact); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", p.configFile, err)
	}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if flags.Lookup(key) == nil || key == "config" {
			errs = append(errs, fmt.Errorf("read configuration %s: %s: unknown key", p.configFile, key))
		}
	}
	return values, errors.Join(errs...)
}
