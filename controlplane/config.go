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
	"time"

	"github.com/spf13/pflag"

	"github.com/nameward/nameward/api/transport"
)

// Config says how the policy server runs. It is valid when Validate says so.
type Config struct {
	// Listen is the address of the API, for operators and agents alike.
	Listen string
	// DataDir holds what must survive.
	DataDir string
	// Store is the kind of storage.
	Store string
	// EtcdEndpoints are the members of the cluster that has the storage, with Store etcd.
	EtcdEndpoints []string
	// EtcdPrefix is that of all keys.
	EtcdPrefix string
	// EtcdCA, EtcdCert and EtcdKey are files of the TLS connection to etcd; the CA of the members, and who this server is.
	EtcdCA, EtcdCert, EtcdKey string
	// Advertise is the address at which the other servers on the same etcd reach this one; empty for Listen.
	Advertise string
	// Insecure allows connections without TLS, from this machine alone; else TLS says how it is known who connects.
	Insecure bool
	TLS      transport.Config
	// MetricsListen is the address of the Prometheus metrics; empty for none.
	MetricsListen string
	// MaxMappings bounds the live mappings of all nodes.
	MaxMappings int
	// MaxFlowEvents bounds the flow events of all nodes.
	MaxFlowEvents int
	// Pprof serves profiles of the process beside the metrics.
	Pprof bool
	// TraceEndpoint is the OpenTelemetry collector that spans of requests go to; empty for none.
	TraceEndpoint string
	// TraceInsecure sends them in plain text.
	TraceInsecure bool
	// TraceRatio is the part of the requests that is traced, of those whose caller does not say.
	TraceRatio float64
	// DrainTime is what agents get to leave a server that stops, each at a random moment of it.
	DrainTime time.Duration
	// RolesFile says which role an identity has; empty for the convention in SPIFFE IDs.
	RolesFile string
	// AuditFileSize is the size from which on a file of the audit log is left for another, AuditFiles how many are kept.
	AuditFileSize int64
	AuditFiles    int
	// MaxConnections bounds the connections to the API.
	MaxConnections int
	LogLevel       string
	LogFormat      string
}

// A server that is asked to stop is soon killed: see TimeoutStopSec of its unit.
const minDrainTime, maxDrainTime = 100 * time.Millisecond, 10 * time.Minute

const (
	storeBolt = "bolt"
	storeEtcd = "etcd"
)

const (
	logText = "text"
	logJSON = "json"
)

// DefaultConfig returns what holds where nothing is said.
func DefaultConfig() Config {
	return Config{
		Listen: "127.0.0.1:7443", DataDir: "/var/lib/nameward-server", Store: storeBolt, EtcdPrefix: "/nameward/",
		MetricsListen: "127.0.0.1:7480", MaxMappings: 1_000_000, MaxFlowEvents: 262_144, DrainTime: 2 * time.Second, TraceRatio: 1,
		AuditFileSize: 16 << 20, AuditFiles: 64, MaxConnections: 65_536, LogLevel: "info", LogFormat: logText,
	}
}

// Bind declares the flags.
func (c *Config) Bind(flags *pflag.FlagSet) {
	flags.StringVar(&c.Listen, "listen", c.Listen, "address of the API, HOST:PORT")
	flags.StringVar(&c.DataDir, "data-dir", c.DataDir, "directory of what must survive a restart")
	flags.StringVar(&c.Store, "store", c.Store, "kind of storage: bolt, a file of this server alone, or etcd, which several servers share")
	c.bindEtcd(flags)
	flags.BoolVar(&c.Insecure, "insecure", c.Insecure, "serve in plain text, on a loopback address only: whoever connects may do everything")
	c.TLS.BindServer(flags)
	flags.StringVar(&c.MetricsListen, "metrics-listen", c.MetricsListen, "address of the Prometheus metrics, HOST:PORT; empty for none")
	flags.IntVar(&c.MaxMappings, "max-mappings", c.MaxMappings, "live mappings of all nodes that are kept; over it the one that ends first goes first")
	flags.IntVar(&c.MaxFlowEvents, "max-flow-events", c.MaxFlowEvents, "flow events of all nodes that are kept, each for a day after it was last seen; over it the one that was not seen for longest goes first")
	flags.BoolVar(&c.Pprof, "pprof", c.Pprof, "serve profiles of the process at /debug/pprof/ of --metrics-listen, which must be a loopback address")
	flags.StringVar(&c.TraceEndpoint, "trace-endpoint", c.TraceEndpoint, "OpenTelemetry collector (OTLP over gRPC) that traces of requests go to, HOST:PORT; empty for none")
	flags.BoolVar(&c.TraceInsecure, "trace-insecure", c.TraceInsecure, "send traces in plain text")
	flags.Float64Var(&c.TraceRatio, "trace-ratio", c.TraceRatio, "part of the requests that is traced, from 0 to 1; a caller that traces decides for its own")
	flags.DurationVar(&c.DrainTime, "drain-time", c.DrainTime, "what agents get to leave a server that stops, each at a random moment of it, so that they do not come to another server all at once")
	c.bindAccess(flags)
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
	c.TLS.ValidateServer(c.Insecure, func(flag string, err error) { fault(flag, "%w", err) })
	if c.DataDir == "" {
		fault("data-dir", "must be set")
	}
	switch c.Store {
	case storeBolt:
		c.validateBolt(fault)
	case storeEtcd:
		c.validateEtcd(fault)
	default:
		fault("store", "%q is neither bolt nor etcd", c.Store)
	}
	c.validateObservability(fault)
	c.validateAccess(fault)
	if c.MaxMappings < 1 {
		fault("max-mappings", "%d is below 1", c.MaxMappings)
	}
	if c.MaxFlowEvents < 1 {
		fault("max-flow-events", "%d is below 1", c.MaxFlowEvents)
	}
	if c.DrainTime < minDrainTime || c.DrainTime > maxDrainTime {
		fault("drain-time", "%v is not from %v to %v", c.DrainTime, minDrainTime, maxDrainTime)
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		fault("log-level", "%w", err)
	}
	if !slices.Contains([]string{logText, logJSON}, c.LogFormat) {
		fault("log-format", "%q is neither text nor json", c.LogFormat)
	}
	return errors.Join(faults...)
}

// validateObservability says what is wrong with what is shown of the process.
func (c Config) validateObservability(fault func(flag, format string, args ...any)) {
	loopback := false
	if c.MetricsListen != "" {
		var err error
		if loopback, err = isLoopback(c.MetricsListen); err != nil {
			fault("metrics-listen", "%w", err)
		}
	}
	if c.Pprof && !loopback {
		fault("pprof", "--metrics-listen is %q: profiles show what the process has in memory, and are for a loopback address alone", c.MetricsListen)
	}
	if c.TraceEndpoint != "" {
		if _, _, err := net.SplitHostPort(c.TraceEndpoint); err != nil {
			fault("trace-endpoint", "%q is not HOST:PORT", c.TraceEndpoint)
		}
	}
	if c.TraceRatio < 0 || c.TraceRatio > 1 {
		fault("trace-ratio", "%v is not from 0 to 1", c.TraceRatio)
	}
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
