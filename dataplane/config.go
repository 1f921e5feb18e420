// Package dataplane is the node agent: it reads its configuration, makes every stage, and runs them
// together until it is told to stop. What it leaves in the kernel stays in force after that.
package dataplane

import (
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/netfilter"
)

const (
	dnsPort     = 53
	resolvConf  = "/etc/resolv.conf"
	maxPatterns = 131_072 // what the policy server grants a node at most
	maxLabel    = 253     // as in policies (policy.proto), which select by labels
)

// Config is what an operator decides about an agent. Fields are named after the flags.
type Config struct {
	Servers  []string
	Insecure bool             // plain text, to this machine alone
	TLS      transport.Config // how agent and servers know each other, else
	NodeName string
	Labels   map[string]string

	StateDir string
	BPFDir   string
	Socket   string

	TrustedResolvers []string // ADDR or ADDR:PORT; empty: those of /etc/resolv.conf

	MinTTL, MaxTTL, TTLGrace time.Duration
	DNSQueryTimeout          time.Duration

	MaxMappings         uint32
	MaxAddressesPerName uint32
	MaxQueries          uint32

	IPTables      string // auto, nft or legacy
	Mark          uint32 // one bit
	AllowedTarget string
	DeniedTarget  string

	BeforeFirstRuleSet string // what a node may do that never had one: ALLOW or DENY all

	MetricsListen string // empty: no metrics
	LogLevel      string
	LogFormat     string

	// NotifySocket is where the service manager hears how the start goes; empty for none. It is no flag: the
	// service manager itself says it.
	NotifySocket string
}

// DefaultConfig returns what holds where the operator says nothing.
func DefaultConfig() Config {
	return Config{
		StateDir:            "/var/lib/nameward",
		BPFDir:              "/sys/fs/bpf/nameward",
		Socket:              "/run/nameward/agent.sock",
		MinTTL:              30 * time.Second,
		MaxTTL:              24 * time.Hour,
		TTLGrace:            30 * time.Second,
		DNSQueryTimeout:     10 * time.Second,
		MaxMappings:         262_144,
		MaxAddressesPerName: 1000,
		MaxQueries:          65_536,
		IPTables:            netfilter.Auto,
		Mark:                0x10000000,
		AllowedTarget:       netfilter.Return,
		DeniedTarget:        netfilter.Reject,
		BeforeFirstRuleSet:  AllowAll,
		MetricsListen:       "127.0.0.1:7481",
		LogLevel:            "info",
		LogFormat:           "text",
	}
}

// faults collects what is wrong with flags.
type faults []error

func (f *faults) add(wrong bool, flag, format string, args ...any) {
	if wrong {
		*f = append(*f, fmt.Errorf("%s: "+format, append([]any{flag}, args...)...))
	}
}

// Validate returns every fault, each under its flag's name.
func (c Config) Validate() error {
	var f faults
	c.TLS.ValidateClient(c.Insecure, func(flag string, err error) { f.add(true, flag, "%v", err) })
	f.add(len(c.Servers) == 0, "server", "must be set: HOST:PORT of the policy server")
	_, err := node.ParseID(c.NodeName)
	f.add(err != nil, "node-name", "%v", err)
	_, err = c.resolvers()
	f.add(err != nil, "trusted-resolver", "%v", err)
	return errors.Join(append(f, c.ValidateNode())...)
}

// ValidateNode returns the faults of what check needs too: all but what only an agent that runs has to know, whom to
// speak with and who it is. A resolver that is none is a requirement of its own there.
func (c Config) ValidateNode() error {
	var f faults
	fault := f.add
	for _, server := range c.Servers {
		fault(!hasPort(server), "server", "%q is not HOST:PORT", server)
		fault(hasPort(server) && c.Insecure && !loopback(server), "server", "%q is no loopback address, and in plain text (--insecure) no other is allowed", server)
	}
	for key, value := range c.Labels {
		fault(key == "" || len(key) > maxLabel, "label", "key %q has not 1 to %d characters", key, maxLabel)
		fault(len(value) > maxLabel, "label", "value %q of %s has more than %d characters, and so is selected by no policy", value, key, maxLabel)
	}
	fault(c.MinTTL < 0, "min-ttl", "%v is negative", c.MinTTL)
	fault(c.MaxTTL < c.MinTTL, "max-ttl", "%v is less than --min-ttl %v", c.MaxTTL, c.MinTTL)
	fault(c.TTLGrace < 0, "ttl-grace", "%v is negative", c.TTLGrace)
	fault(c.DNSQueryTimeout <= 0, "dns-query-timeout", "%v is not more than zero", c.DNSQueryTimeout)
	fault(c.MaxMappings == 0, "max-mappings", "must be more than zero")
	fault(c.MaxAddressesPerName == 0 || c.MaxAddressesPerName > 1000, "max-addresses-per-name", "%d is not 1 to 1000", c.MaxAddressesPerName)
	fault(c.MaxQueries == 0, "max-queries", "must be more than zero")
	fault(bits.OnesCount32(c.Mark) != 1, "mark", "%#x is not one bit", c.Mark)
	fault(!slices.Contains([]string{netfilter.Return, netfilter.Accept}, c.AllowedTarget), "allowed-target", "%q is neither RETURN nor ACCEPT", c.AllowedTarget)
	fault(!slices.Contains([]string{netfilter.Reject, netfilter.Drop}, c.DeniedTarget), "denied-target", "%q is neither REJECT nor DROP", c.DeniedTarget)
	fault(!slices.Contains([]string{AllowAll, DenyAll}, c.BeforeFirstRuleSet), "before-first-rule-set", "%q is neither ALLOW nor DENY", c.BeforeFirstRuleSet)
	if c.MetricsListen != "" {
		_, port, err := net.SplitHostPort(c.MetricsListen)
		if err == nil {
			_, err = net.LookupPort("tcp", port)
		}
		fault(err != nil, "metrics-listen", "%q is not HOST:PORT", c.MetricsListen)
	}
	fault(!slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel), "log-level", "%q is none of debug, info, warn, error", c.LogLevel)
	fault(!slices.Contains([]string{"text", "json"}, c.LogFormat), "log-format", "%q is neither text nor json", c.LogFormat)
	return errors.Join(append(f, c.ValidatePaths())...)
}

// hasPort reports whether an address is HOST:PORT with the number of a port.
func hasPort(address string) bool {
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	return errors.Join(err, portErr) == nil && host != "" && number != 0
}

// ValidatePaths returns the faults of what cleanup needs too.
func (c Config) ValidatePaths() error {
	var errs []error
	for flag, path := range map[string]string{"state-dir": c.StateDir, "bpf-dir": c.BPFDir, "socket": c.Socket} {
		if !filepath.IsAbs(path) || filepath.Clean(path) == "/" {
			errs = append(errs, fmt.Errorf("%s: %q is no absolute path", flag, path))
		}
	}
	// The path stands in rules, which are compared with what iptables prints.
	if !regexp.MustCompile(`^[A-Za-z0-9/._-]*$`).MatchString(c.BPFDir) {
		errs = append(errs, fmt.Errorf("bpf-dir: %q has characters other than letters, digits, `/`, `.`, `_` and `-`", c.BPFDir))
	}
	if !slices.Contains([]string{netfilter.Auto, netfilter.NFT, netfilter.Legacy}, c.IPTables) {
		errs = append(errs, fmt.Errorf("iptables: %q is none of auto, nft, legacy", c.IPTables))
	}
	return errors.Join(errs...)
}

func (c Config) resolvers() ([]netip.AddrPort, error) {
	if len(c.TrustedResolvers) == 0 {
		return systemResolvers(resolvConf)
	}
	var resolvers []netip.AddrPort
	var errs []error
	for _, text := range c.TrustedResolvers {
		resolver, err := parseResolver(text)
		if err == nil && !answers(resolver.Addr()) {
			err = fmt.Errorf("%q is not the address of one server", text)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		resolvers = append(resolvers, resolver)
	}
	return resolvers, errors.Join(errs...)
}

func parseResolver(text string) (netip.AddrPort, error) {
	if address, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return netip.AddrPortFrom(address.Unmap().WithZone(""), dnsPort), nil
	}
	resolver, err := netip.ParseAddrPort(text)
	if err != nil || resolver.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is not ADDR or ADDR:PORT", text)
	}
	return netip.AddrPortFrom(resolver.Addr().Unmap().WithZone(""), resolver.Port()), nil
}

// answers reports whether packets may come from an address.
func answers(address netip.Addr) bool {
	return !address.IsUnspecified() && !address.IsMulticast() && address != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func (c Config) datapath() datapath.Config {
	return datapath.Config{
		PinDir: c.BPFDir, StateDir: c.StateDir,
		MinTTL: c.MinTTL, MaxTTL: c.MaxTTL, TTLGrace: c.TTLGrace, QueryTimeout: c.DNSQueryTimeout,
		MaxMappings: c.MaxMappings, MaxAddressesPerName: c.MaxAddressesPerName, MaxQueries: c.MaxQueries,
		MaxPatterns: maxPatterns, Accepts: c.AllowedTarget == netfilter.Accept,
	}
}

func (c Config) netfilter(resolvers []netip.AddrPort) netfilter.Config {
	return netfilter.Config{
		Backend: c.IPTables, Resolvers: resolvers,
		Mark: c.Mark, AllowedTarget: c.AllowedTarget, DeniedTarget: c.DeniedTarget,
	}
}

// FormatMark returns a mark as it is written: in hexadecimal.
func FormatMark(mark uint32) string { return "0x" + strconv.FormatUint(uint64(mark), 16) }
