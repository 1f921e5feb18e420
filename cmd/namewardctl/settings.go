package main

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

const (
	defaultServer  = "127.0.0.1:7443"
	defaultTimeout = 10 * time.Second
)

// settings say whom to talk to and how to print.
type settings struct {
	server   string
	agent    string
	insecure bool
	timeout  time.Duration
	config   string
	output   format
}

// bind declares the global flags.
func (s *settings) bind(root *cobra.Command) {
	flags := root.PersistentFlags()
	flags.StringVar(&s.server, "server", defaultServer, "policy server, HOST:PORT")
	flags.StringVar(&s.agent, "agent", "", "ask the agent on this Unix socket instead of the server")
	flags.BoolVar(&s.insecure, "insecure", false, "talk to the server in plain text")
	flags.DurationVar(&s.timeout, "timeout", defaultTimeout, "how long to wait for each answer")
	flags.StringVar(&s.config, "config", "", "YAML file with values for the global flags")
}

// bindOutput declares -o on a command that prints a result.
func (s *settings) bindOutput(command *cobra.Command) {
	s.output = formatTable
	command.Flags().VarP(&s.output, "output", "o", "table, wide, json or yaml")
}

// complete fills the flags that the command line left open from the environment, then from the
// configuration file.
func (s *settings) complete(command *cobra.Command, lookupEnv func(string) (string, bool), readFile func(string) ([]byte, error)) error {
	// The file's own name may come from the environment, so it goes first.
	if err := s.fill(command, "config", lookupEnv, nil); err != nil {
		return err
	}
	values, err := readConfig(s.config, readFile)
	if err != nil {
		return usageError{err}
	}
	names := []string{"insecure", "timeout", "output"}
	// Whom to ask is one choice made with two flags: what the command line says of it is all of it.
	if !command.Flags().Changed("server") && !command.Flags().Changed("agent") {
		names = append(names, "server", "agent")
	}
	var errs []error
	for _, name := range names {
		errs = append(errs, s.fill(command, name, lookupEnv, values))
	}
	return errors.Join(append(errs, s.validate(command))...)
}

func (s *settings) fill(command *cobra.Command, name string, lookupEnv func(string) (string, bool), values map[string]any) error {
	flag := command.Flags().Lookup(name)
	if flag == nil || flag.Changed {
		return nil
	}
	variable := "NAMEWARD_" + strings.ToUpper(name)
	if value, ok := lookupEnv(variable); ok && value != "" {
		if err := flag.Value.Set(value); err != nil {
			return usagef("%s: %q: %w", variable, value, err)
		}
		return nil
	}
	if value, ok := values[name]; ok {
		if err := flag.Value.Set(fmt.Sprint(value)); err != nil {
			return usagef("%s: %s: %q: %w", s.config, name, fmt.Sprint(value), err)
		}
	}
	return nil
}

func (s *settings) validate(command *cobra.Command) error {
	var errs []error
	if command.Flags().Changed("server") && command.Flags().Changed("agent") {
		errs = append(errs, usagef("--server and --agent: give one of them"))
	}
	if _, port, err := net.SplitHostPort(s.server); err != nil || port == "" {
		errs = append(errs, usagef("--server: %q is not HOST:PORT", s.server))
	}
	if s.timeout <= 0 {
		errs = append(errs, usagef("--timeout: %v is not more than zero", s.timeout))
	}
	return errors.Join(errs...)
}

// readConfig reads the file that --config names; without one there are no values.
func readConfig(path string, readFile func(string) ([]byte, error)) (map[string]any, error) {
	if path == "" {
		return nil, nil
	}
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(data, &values); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	known := []string{"server", "agent", "insecure", "timeout", "output"}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(known, key) {
			errs = append(errs, fmt.Errorf("read configuration %s: %s: unknown key%s", path, key, suggestion(key, known)))
		}
	}
	return values, errors.Join(errs...)
}
