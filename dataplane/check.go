package dataplane

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/nameward/nameward/dataplane/conntrack"
	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/preflight"
)

// Requirement is one thing that the node needs, and whether it has it.
type Requirement = preflight.Requirement

// Check finds out, by trying, whether this machine can run an agent, and what would be in its way. It leaves
// nothing behind.
func Check(ctx context.Context, cfg Config) []Requirement {
	return append(required(ctx, cfg, datapath.Probe(cfg.BPFDir)), advised(ctx, cfg)...)
}

// requiredAll is what an agent cannot enforce without.
func requiredAll(ctx context.Context, cfg Config) []Requirement {
	return required(ctx, cfg, datapath.Probe(cfg.BPFDir))
}

// requiredBeforeStart leaves out what the start itself finds out before it changes anything.
func requiredBeforeStart(ctx context.Context, cfg Config) []Requirement {
	return required(ctx, cfg, datapath.ProbeBeforeOpen(cfg.BPFDir))
}

// required adds to what the datapath needs. It asks nobody on the network: at a boot there is none.
func required(ctx context.Context, cfg Config, ofDatapath []Requirement) []Requirement {
	requirements := []Requirement{preflight.Capabilities(netfilter.UsesLegacy(cfg.IPTables)), preflight.Clock()}
	requirements = append(requirements, ofDatapath...)
	requirements = append(requirements, checkRules(ctx, cfg)...)
	requirements = append(requirements, conntrack.Probe())
	resolvers, err := cfg.resolvers()
	requirements = append(requirements, preflight.Judge("trusted resolvers", fmt.Sprint(resolvers), err, "name them with --trusted-resolver"))
	return append(requirements, anotherNamespace(ctx, cfg))
}

// checkRules tries the rules with a program that is pinned for them.
func checkRules(ctx context.Context, cfg Config) []Requirement {
	pin, remove, err := datapath.PinProbe(cfg.BPFDir)
	if err != nil {
		return netfilter.Probe(ctx, cfg.netfilter(nil), "")
	}
	resolvers, _ := cfg.resolvers() // said by a requirement of its own
	requirements := netfilter.Probe(ctx, cfg.netfilter(resolvers), pin)
	if err := remove(); err != nil {
		requirements = append(requirements, preflight.Warn("probe", err.Error(), "remove "+pin))
	}
	return requirements
}

// advised is what an agent starts without: it is said where a person asks, and the part that may come at any
// time by the agent too.
func advised(ctx context.Context, cfg Config) []Requirement {
	requirements := []Requirement{preflight.StateDir(cfg.StateDir), anotherAgent(cfg)}
	requirements = append(requirements, checkCertificates(ctx, cfg, time.Now())...)
	requirements = append(requirements, conflicts(ctx, cfg)...)
	if resolvers, err := cfg.resolvers(); err == nil {
		requirements = append(requirements, preflight.Reachable(ctx, resolvers)...)
	}
	return append(requirements, preflight.Synchronised())
}

// conflicts looks for rules of others in the agent's way.
func conflicts(ctx context.Context, cfg Config) []Requirement {
	backend, err := netfilter.Choose(ctx, cfg.IPTables)
	if err != nil {
		return nil // a requirement of its own says so
	}
	return netfilter.Conflicts(ctx, backend, cfg.Mark)
}

// AllMet reports whether an agent starts here: no requirement has failed.
func AllMet(requirements []Requirement) bool {
	for _, r := range requirements {
		if r.Level == preflight.Failed {
			return false
		}
	}
	return true
}

// WriteTable writes requirements for a person: what is not well with its remedy below it.
func WriteTable(w io.Writer, requirements []Requirement) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REQUIREMENT\tSTATUS\tDETAIL")
	for _, r := range requirements {
		status := string(r.Level)
		if r.Level != preflight.OK {
			status = strings.ToUpper(status)
		}
		// A detail of several lines stays in its column.
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Name, status, strings.ReplaceAll(r.Detail, "\n", "\n\t\t"))
		if r.Remedy != "" {
			fmt.Fprintf(t, "\t\t→ %s\n", r.Remedy)
		}
	}
	return t.Flush() //nolint:wrapcheck // of the caller's writer
}

// jsonRequirement is a requirement as programs read it.
type jsonRequirement struct {
	Requirement string `json:"requirement"`
	Status      string `json:"status"` // ok, warning, failed
	Met         bool   `json:"met"`    // not failed
	Detail      string `json:"detail"`
	Remedy      string `json:"remedy,omitempty"`
}

// WriteJSON writes requirements for a program.
func WriteJSON(w io.Writer, requirements []Requirement) error {
	list := make([]jsonRequirement, 0, len(requirements))
	for _, r := range requirements {
		list = append(list, jsonRequirement{r.Name, string(r.Level), r.Level != preflight.Failed, r.Detail, r.Remedy})
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(struct { //nolint:wrapcheck // of the caller's writer
		Met          bool              `json:"met"`
		Requirements []jsonRequirement `json:"requirements"`
	}{AllMet(requirements), list})
}
