package syncserver

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// What a node may say of itself. Agents say far less; what is over this is of a node that is not itself, and shall
// neither fill the server's memory and disk nor what operators read. A hello is refused for it, of a status the rest is
// left out, a batch is not even decoded.
const (
	maxRequest    = 8 << 20 // a batch of the longest chains stays below half of it
	maxLabels     = 128
	maxLabelKey   = 253
	maxLabelValue = 1 << 10
	maxText       = 256 // a version, a kernel release, an id
	maxCounters   = 512
	maxFaults     = 64
	maxFault      = 1 << 10
	maxEndpoints  = 256
)

// checkHello returns an error that names what of a hello is too much.
func checkHello(hello *agentv1.Hello) error {
	for name, text := range map[string]string{
		"node": hello.GetNode(), "agent_version": hello.GetAgentVersion(), "kernel": hello.GetKernel(),
		"iptables_backend": hello.GetIptablesBackend(), "store_id": hello.GetStoreId(),
		"rule_set_id": string(hello.GetRuleSetId()), "instance_id": hello.GetInstanceId(),
	} {
		if len(text) > maxText {
			return tooMuch("hello."+name, "bytes", len(text), maxText)
		}
	}
	if n := len(hello.GetLabels()); n > maxLabels {
		return tooMuch("hello.labels", "labels", n, maxLabels)
	}
	for key, value := range hello.GetLabels() {
		if len(key) > maxLabelKey {
			return tooMuch("hello.labels", "bytes of a key", len(key), maxLabelKey)
		}
		if len(value) > maxLabelValue {
			return tooMuch("hello.labels["+key+"]", "bytes", len(value), maxLabelValue)
		}
	}
	if n := len(hello.GetTrustedResolvers()); n > maxEndpoints {
		return tooMuch("hello.trusted_resolvers", "addresses", n, maxEndpoints)
	}
	if n := len(hello.GetCapabilities()); n > maxEndpoints {
		return tooMuch("hello.capabilities", "of them", n, maxEndpoints)
	}
	return nil
}

func tooMuch(field, what string, got, most int) error {
	return fmt.Errorf("%w: %s has %d %s, and no more than %d are taken", errTooMuch, field, got, what, most)
}

// boundReport leaves out of a status what is too much, and reports whether there was any. The message is the caller's
// to change.
func boundReport(report *agentv1.StatusReport) (cut bool) {
	if len(report.GetCounters()) > maxCounters {
		cut = true
		for _, name := range slices.Sorted(maps.Keys(report.GetCounters()))[maxCounters:] {
			delete(report.Counters, name)
		}
	}
	for name := range report.GetCounters() {
		if len(name) > maxText {
			cut = true
			delete(report.Counters, name)
		}
	}
	report.Degraded, cut = firstOf(report.GetDegraded(), maxFaults, cut)
	for i, fault := range report.GetDegraded() {
		if len(fault) > maxFault {
			cut = true
			report.Degraded[i] = cutText(fault)
		}
	}
	report.PolicyServers, cut = firstOf(report.GetPolicyServers(), maxEndpoints, cut)
	if len(report.GetAddresses()) > maxEndpoints {
		report.MoreAddresses = true
	}
	report.Addresses, cut = firstOf(report.GetAddresses(), maxEndpoints, cut)
	return cut
}

func firstOf(list []string, most int, cut bool) ([]string, bool) {
	if len(list) <= most {
		return list, cut
	}
	return list[:most], true
}

// cutText bounds a text that people are to read.
func cutText(text string) string {
	if len(text) > maxFault {
		text = strings.ToValidUTF8(text[:maxFault], "") + "…"
	}
	return text
}
