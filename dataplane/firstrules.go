package dataplane

import (
	"log/slog"
	"net/netip"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/enforce"
)

// What a node does before it ever had a rule set.
const (
	AllowAll = "ALLOW"
	DenyAll  = "DENY"
)

// denyAllName is the policy that flow events name while there is none yet.
const denyAllName = "policies/before-first-rule-set"

// denyAll is in force on a node that shall reach nothing before its policies have come. It is of no store,
// so the first rule set of any takes its place.
func denyAll() *enforce.Revision {
	rules := ruleset.New([]ruleset.Policy{{
		Name: denyAllName,
		Workloads: []ruleset.Workload{
			{Host: true},
			{CIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}},
		},
	}})
	return &enforce.Revision{Rules: rules, ID: rules.ID()}
}

// first returns what is to be in force where nothing was saved. What is in force in the kernel, and only
// lost on disk, says more than to deny all.
func first(cfg Config, maps kernelMaps, log *slog.Logger) *enforce.Revision {
	if cfg.BeforeFirstRuleSet != DenyAll {
		return nil
	}
	none, err := maps.HoldsNone()
	if err != nil {
		log.Warn("what is in force is not known", "err", err)
	}
	if err == nil && !none {
		return nil
	}
	log.Warn("there is no rule set yet: until the policy server sends one, everything is denied", "policy", denyAllName)
	return denyAll()
}
