package main

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/cmd/settings"
)

const (
	defaultServer  = "127.0.0.1:7443"
	defaultTimeout = 10 * time.Second
)

// options say whom to talk to and how to print.
type options struct {
	server   string
	agent    string
	insecure bool
	tls      transport.Config
	timeout  time.Duration
	output   format
}

// bind declares the global flags.
func (o *options) bind(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&o.server, "server", defaultServer, "policy server, HOST:PORT")
	flags.StringVar(&o.agent, "agent", "", "ask the agent on this Unix socket instead of the server")
	flags.BoolVar(&o.insecure, "insecure", false, "talk to the server in plain text, on loopback alone")
	o.tls.BindClient(flags)
	flags.DurationVar(&o.timeout, "timeout", defaultTimeout, "how long to wait for each answer")
	flags.String(settings.ConfigFlag, "", "YAML file with values for the global flags")
}

// bindOutput declares -o on a command that prints a result.
func (o *options) bindOutput(command *cobra.Command) {
	o.output = formatTable
	command.Flags().VarP(&o.output, "output", "o", "table, wide, json or yaml")
	if err := command.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(
		[]string{"table", "wide", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}

// complete fills the global flags and -o, as far as the command line left them open, from the environment,
// then from the configuration file. A command's own flags say what to do once: nothing else sets them.
func (o *options) complete(command *cobra.Command, lookupEnv func(string) (string, bool), readFile func(string) ([]byte, error)) error {
	from := settings.Source{LookupEnv: lookupEnv, ReadFile: readFile}
	flags := pflag.NewFlagSet(command.Name(), pflag.ContinueOnError)
	// Not PersistentFlags of the root alone: it does not have -o.
	for _, name := range append(transport.Names(), "server", "agent", "insecure", "timeout", "output", settings.ConfigFlag) {
		if flag := command.Flags().Lookup(name); flag != nil {
			flags.AddFlag(flag)
			continue
		}
		// A command that prints no result has no -o, but shares the file with those that do.
		from.Silent = append(from.Silent, name)
	}
	// Whom to ask is one choice made with two flags: what the command line says of it is all of it.
	if flags.Lookup("server").Changed || flags.Lookup("agent").Changed {
		from.Silent = append(from.Silent, "server", "agent")
	}
	err := settings.Complete(flags, from)
	if err != nil {
		err = usageError{err}
	}
	return errors.Join(err, o.validate(command))
}

// validateConnection returns the faults of how the server is spoken with, which a command that does not speak with it
// need not know.
func (o *options) validateConnection() error {
	var errs []error
	o.tls.ValidateClient(o.insecure, func(flag string, err error) { errs = append(errs, usagef("--%s: %w", flag, err)) })
	if host, _, err := net.SplitHostPort(o.server); o.insecure && err == nil && !loopback(host) {
		errs = append(errs, usagef("--server: %q is no loopback address, and in plain text (--insecure) no other is allowed: use certificates, or a tunnel", o.server))
	}
	return errors.Join(errs...)
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func (o *options) validate(command *cobra.Command) error {
	var errs []error
	if command.Flags().Changed("server") && command.Flags().Changed("agent") {
		errs = append(errs, usagef("--server and --agent: give one of them"))
	}
	host, port, err := net.SplitHostPort(o.server)
	if number, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || host == "" || number == 0 {
		errs = append(errs, usagef("--server: %q is not HOST:PORT", o.server))
	}
	if o.timeout <= 0 {
		errs = append(errs, usagef("--timeout: %v is not more than zero", o.timeout))
	}
	return errors.Join(errs...)
}
