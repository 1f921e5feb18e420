package ruleset

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/nameward/nameward/api/domain"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// FieldError says which field of a message holds a value that cannot be, and why.
type FieldError struct {
	// Field is the path from the message, as in `rules[0].domains[1]`.
	Field string
	// Value is what the field holds.
	Value string
	// Reason says what is wrong with it.
	Reason string
}

// Error returns field, value and reason.
func (e *FieldError) Error() string { return fmt.Sprintf("%s: %q: %s", e.Field, e.Value, e.Reason) }

// maxShown bounds what is shown of a value: gRPC sends the details of an error in a header.
const maxShown = 256

// Description returns value and reason, as valid UTF-8 and short; the value once, where the reason quotes it too.
func (e *FieldError) Description() string {
	value, reason := e.Value, e.Reason
	if len(value) > maxShown {
		short := strings.ToValidUTF8(value[:maxShown], "") + "…"
		reason = strings.ReplaceAll(reason, value, short)
		value = short
	}
	if quoted := strconv.Quote(value); !strings.Contains(reason, quoted) {
		reason = quoted + ": " + reason
	}
	return strings.ToValidUTF8(reason, "\uFFFD")
}

// FieldErrors returns the field errors of a tree of errors, in order.
func FieldErrors(err error) []*FieldError {
	switch e := err.(type) { //nolint:errorlint // this is the walk that errors.As does, for all instead of the first
	case *FieldError:
		return []*FieldError{e}
	case interface{ Unwrap() []error }:
		var all []*FieldError
		for _, child := range e.Unwrap() {
			all = append(all, FieldErrors(child)...)
		}
		return all
	case interface{ Unwrap() error }:
		return FieldErrors(e.Unwrap())
	default:
		return nil
	}
}

// faults collects every fault of a message.
type faults []error

func (f *faults) add(field, value, reason string) {
	*f = append(*f, &FieldError{field, value, reason})
}

// policyName is the constraint of policy.proto on `name`.
var policyName = regexp.MustCompile(`^policies/[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// CheckPolicyName returns a *FieldError on the field when the value is no name of a policy.
func CheckPolicyName(field, value string) error {
	if !policyName.MatchString(value) {
		return &FieldError{field, value, "is not `policies/` and 1 to 63 lower-case letters, digits, `-` and `.`, a letter or a digit first and last"}
	}
	return nil
}

const notSupported = "not supported by this version"

// maxInterface is the longest interface name, IFNAMSIZ - 1 (linux/if.h).
const maxInterface = 15

// ParsePolicy checks a policy and brings it to canonical form. An error joins a *FieldError for every
// fault. A policy without workloads selects the node's own processes.
func ParsePolicy(message *namewardv1.Policy) (Policy, error) {
	return parsePolicy(&agentv1.RuleSetPolicy{
		Name: message.GetName(), Priority: message.GetPriority(), Mode: message.GetMode(), Established: message.GetEstablished(),
		Workloads: message.GetWorkloads(), Rules: message.GetRules(),
	})
}

func parsePolicy(message *agentv1.RuleSetPolicy) (Policy, error) {
	var f faults
	policy := Policy{Name: message.GetName(), Priority: message.GetPriority()}
	switch message.GetMode() {
	case namewardv1.Policy_MODE_UNSPECIFIED, namewardv1.Policy_ENFORCE:
	case namewardv1.Policy_AUDIT:
		policy.Mode = Audit
	case namewardv1.Policy_DISABLED:
		policy.Mode = Disabled
	default:
		f.add("mode", message.GetMode().String(), "is no mode")
	}
	switch message.GetEstablished() {
	case namewardv1.Policy_ESTABLISHED_UNSPECIFIED, namewardv1.Policy_CUT:
	case namewardv1.Policy_KEEP:
		policy.Established = Keep
	default:
		f.add("established", message.GetEstablished().String(), "is neither CUT nor KEEP")
	}
	for i, w := range message.GetWorkloads() {
		policy.Workloads = append(policy.Workloads, f.workload(fmt.Sprintf("workloads[%d]", i), w))
	}
	if len(policy.Workloads) == 0 {
		policy.Workloads = []Workload{{Host: true}}
	}
	for i, r := range message.GetRules() {
		policy.Rules = append(policy.Rules, f.rule(fmt.Sprintf("rules[%d]", i), r))
	}
	return policy, errors.Join(f...)
}

func (f *faults) workload(path string, message *namewardv1.Workload) Workload {
	w := Workload{CIDRs: f.cidrs(path+".cidrs", message.GetCidrs()), Interface: message.GetInterface()}
	if name, _ := cutPlus(w.Interface); len(w.Interface) > maxInterface || strings.ContainsAny(name, " \t\n\v\f\r/:+\x00") {
		f.add(path+".interface", w.Interface, fmt.Sprintf("is no interface name of at most %d characters, nor the beginning of one and `+`", maxInterface))
	}
	forwarded := len(message.GetCidrs()) > 0 || w.Interface != ""
	f.processes(path, message, forwarded, &w)
	if !forwarded && !w.SelectsProcesses() {
		f.add(path, "", "selects nothing: set at least one field")
	}
	return w
}

// processes reads the fields that are of the node's own processes. Beside one of the others `host` says
// nothing more.
func (f *faults) processes(path string, message *namewardv1.Workload, forwarded bool, w *Workload) {
	check := func(field, value, fault string) {
		if forwarded {
			fault = forwardedProcess
		}
		if fault != "" {
			f.add(path+field, value, fault)
		}
	}
	if message.Uid != nil {
		uid, fault := message.GetUid(), ""
		if uid == noUser {
			fault = "is the id of no user"
		}
		w.UID = &uid
		check(".uid", fmt.Sprint(uid), fault)
	}
	if text := message.GetCgroup(); text != "" {
		var fault string
		w.Cgroup, fault = canonicalCgroup(text)
		check(".cgroup", text, fault)
	}
	if text := message.GetSystemdUnit(); text != "" {
		w.Unit = text
		check(".systemd_unit", text, unitFault(text))
	}
	if message.GetHost() {
		w.Host = !w.SelectsProcesses()
		check(".host", "true", "")
	}
}

func (f *faults) rule(path string, message *namewardv1.Rule) Rule {
	r := Rule{CIDRs: f.cidrs(path+".cidrs", message.GetCidrs())}
	switch message.GetAction() {
	case namewardv1.Rule_ALLOW:
	case namewardv1.Rule_DENY:
		r.Action = Deny
	default:
		f.add(path+".action", message.GetAction().String(), "is neither ALLOW nor DENY")
	}
	for i, s := range message.GetDomains() {
		pattern, err := domain.ParsePattern(s)
		if err != nil {
			f.add(fmt.Sprintf("%s.domains[%d]", path, i), s, err.Error())
			continue
		}
		r.Domains = append(r.Domains, pattern)
	}
	r.Domains = sorted(r.Domains, comparePatterns)
	for i, s := range message.GetDomainSets() {
		if err := CheckDomainSetName(fmt.Sprintf("%s.domain_sets[%d]", path, i), s); err != nil {
			*f = append(*f, err)
			continue
		}
		r.DomainSets = append(r.DomainSets, s)
	}
	r.DomainSets = sorted(r.DomainSets, strings.Compare)
	switch message.GetQueryAction() {
	case namewardv1.Rule_QUERY_ACTION_UNSPECIFIED, namewardv1.Rule_RESOLVE:
	case namewardv1.Rule_REFUSE:
		r.RefusesQueries = true
	default:
		f.add(path+".query_action", message.GetQueryAction().String(), "is neither RESOLVE nor REFUSE")
	}
	for i, p := range message.GetPorts() {
		r.Ports = append(r.Ports, f.ports(fmt.Sprintf("%s.ports[%d]", path, i), p))
	}
	r.Ports = sorted(r.Ports, func(a, b Ports) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	return r
}

func (f *faults) ports(path string, message *namewardv1.Port) Ports {
	protocol, ok := parseProtocol(message.GetProtocol())
	if !ok {
		f.add(path+".protocol", message.GetProtocol().String(), "is no protocol: a port needs one")
	}
	first, last := message.GetPort(), message.GetEndPort()
	switch {
	case first > 65535:
		f.add(path+".port", fmt.Sprint(first), "is above 65535")
	case last > 65535:
		f.add(path+".end_port", fmt.Sprint(last), "is above 65535")
	case !protocol.HasPorts() && first != 0:
		f.add(path+".port", fmt.Sprint(first), "ICMP has no ports")
	case !protocol.HasPorts() && last != 0:
		f.add(path+".end_port", fmt.Sprint(last), "ICMP has no ports")
	case first == 0 && last != 0:
		f.add(path+".end_port", fmt.Sprint(last), "the range has no first port")
	case last != 0 && last < first:
		f.add(path+".end_port", fmt.Sprint(last), fmt.Sprintf("is below the first port %d", first))
	case first == 0:
		return Ports{protocol, 0, 65535}
	case last == 0:
		last = first
	}
	return Ports{protocol, uint16(first), uint16(last)} //nolint:gosec // above 65535 is a fault
}

func parseProtocol(message namewardv1.Protocol) (Protocol, bool) {
	switch message {
	case namewardv1.Protocol_TCP:
		return TCP, true
	case namewardv1.Protocol_UDP:
		return UDP, true
	case namewardv1.Protocol_SCTP:
		return SCTP, true
	case namewardv1.Protocol_ICMP:
		return ICMP, true
	default:
		return TCP, false
	}
}

func (f *faults) cidrs(path string, messages []string) []netip.Prefix {
	var prefixes []netip.Prefix
	for i, s := range messages {
		prefix, err := parsePrefix(s)
		if err != nil {
			f.add(fmt.Sprintf("%s[%d]", path, i), s, err.Error())
			continue
		}
		prefixes = append(prefixes, prefix)
	}
	return sorted(prefixes, netip.Prefix.Compare)
}

// parsePrefix reads CIDR form or a single address. Bits behind the prefix are refused: `10.1.2.3/8` is
// more often a slip than a wish for all of 10.0.0.0/8.
func parsePrefix(s string) (netip.Prefix, error) {
	if !strings.Contains(s, "/") {
		address, err := netip.ParseAddr(s)
		if err != nil || address.Zone() != "" {
			return netip.Prefix{}, errors.New("is neither an address nor a CIDR")
		}
		address = address.Unmap()
		return netip.PrefixFrom(address, address.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, errors.New("is no CIDR")
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, errors.New("is an IPv4 address in IPv6 form: write it as IPv4")
	}
	if masked := prefix.Masked(); masked != prefix {
		return netip.Prefix{}, fmt.Errorf("has bits set behind the prefix: write %s or %s", masked, prefix.Addr())
	}
	return prefix, nil
}

func sorted[E comparable](list []E, compare func(a, b E) int) []E {
	slices.SortFunc(list, compare)
	return slices.Compact(list)
}
