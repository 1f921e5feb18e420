// Package controlplane is the policy server: it makes the stages, wires them and runs them. Policies come
// from operators through adminserver into store; compile and publish make of them what each node shall
// hold; syncserver carries that to the agents and what they see back into ingest.
package controlplane

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"github.com/spf13/pflag"
)

// Config says how the policy server runs. It is valid when Validate says so.
type Config struct {
	// Listen is the address of the API, for operators and agents alike.
	Listen string
	// DataDir holds what must survive.
	DataDir string
	// Store is the kind of storage.
	Store string
	// Insecure allows connections without TLS, from this machine alone.
	Insecure bool
	// MetricsListen is the address of the Prometheus metrics; empty for none.
	MetricsListen string
	// MaxMappings bounds the live mappings of all nodes.
	MaxMappings int
	// MaxFlowEvents bounds the flow events of all nodes.
	MaxFlowEvents int
	LogLevel      string
	LogFormat     string
}

const (
	logText = "text"
	logJSON = "json"
)

// DefaultConfig returns what holds where nothing is said.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:7443", DataDir: "/var/lib/nameward-server", Store: "bolt",
		MetricsListen: "127.0.0.1:7480", MaxMappings: 1_000_000, MaxFlowEvents: 262_144, LogLevel: "info", LogFormat: logText,
	}
}

// Bind declares the flags.
func (c *Config) Bind(flags *pflag.FlagSet) {
	flags.StringVar(&c.Listen, "listen", c.Listen, "address of the API, HOST:PORT")
	flags.StringVar(&c.DataDir, "data-dir", c.DataDir, "directory of what must survive a restart")
	flags.StringVar(&c.Store, "store", c.Store, "kind of storage: bolt")
	flags.BoolVar(&c.Insecure, "insecure", c.Insecure, "serve without TLS, on a loopback address only")
	flags.StringVar(&c.MetricsListen, "metrics-listen", c.MetricsListen, "address of the Prometheus metrics, HOST:PORT; empty for none")
	flags.IntVar(&c.MaxMappings, "max-mappings", c.MaxMappings, "live mappings of all nodes that are kept; over it the one that ends first goes first")
	flags.IntVar(&c.MaxFlowEvents, "max-flow-events", c.MaxFlowEvents, "flow events of all nodes that are kept, each for a day after it was last seen; over it the one that was not seen for longest goes first")
	flags.StringVar(&c.LogLevel, "log-level", c.LogLevel, "debug, info, warn or error")
	flags.StringVar(&c.LogFormat, "log-format", c.LogFormat, "text or json")
}

// Validate returns every fault, each under the name of its flag.
func (c Config) Validate() error {
	var faults []error
	fault := func(flag, format string, args ...any) {
		faults = append(faults, fmt.Errorf(flag+": "+format, args...))
	}
	switch loopback, err := isLoopback(c.Listen); {
	case err != nil:
		fault("listen", "%w", err)
	case c.Insecure && !loopback:
		fault("listen", "%q is no loopback address, and without TLS no other is allowed", c.Listen)
	}
	if !c.Insecure {
		fault("insecure", "must be set: TLS is not in this version")
	}
	if c.DataDir == "" {
		fault("data-dir", "must be set")
	}
	switch c.Store {
	case "bolt":
	case "etcd":
		fault("store", "etcd is not supported by this version")
	default:
		fault("store", "%q is not bolt", c.Store)
	}
	if c.MetricsListen != "" {
		if _, err := isLoopback(c.MetricsListen); err != nil {
			fault("metrics-listen", "%w", err)
		}
	}
	if c.MaxMappings < 1 {
		fault("max-mappings", "%d is below 1", c.MaxMappings)
	}
	if c.MaxFlowEvents < 1 {
		fault("max-flow-events", "%d is below 1", c.MaxFlowEvents)
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		fault("log-level", "%w", err)
	}
	if !slices.Contains([]string{logText, logJSON}, c.LogFormat) {
		fault("log-format", "%q is neither text nor json", c.LogFormat)
	}
	return errors.Join(faults...)
}

// NewLog returns the log of a valid configuration.
func (c Config) NewLog(w io.Writer) *slog.Logger {
	level, err := parseLevel(c.LogLevel)
	if err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if c.LogFormat == logJSON {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func parseLevel(text string) (slog.Level, error) {
	switch text {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	default:
		return 0, fmt.Errorf("%q is not debug, info, warn or error", text)
	}
}

// isLoopback reports whether only this machine can reach an address HOST:PORT.
func isLoopback(address string) (bool, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return false, fmt.Errorf("%q is not HOST:PORT", address)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return false, fmt.Errorf("%q has no valid port", address)
	}
	if host == "localhost" {
		return true, nil
	}
	ip, err := netip.ParseAddr(host)
	if host != "" && err != nil {
		return false, fmt.Errorf("%q has no valid IP address", address)
	}
	return host != "" && ip.IsLoopback(), nil
}
