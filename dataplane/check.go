package dataplane

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/nameward/nameward/dataplane/conntrack"
	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/netfilter"
)

// Requirement is one thing that the node needs, and whether it has it.
type Requirement struct {
	Name   string `json:"requirement"`
	Met    bool   `json:"met"`
	Detail string `json:"detail"`           // what was found
	Remedy string `json:"remedy,omitempty"` // what to do; empty when met
}

// Check finds out, by trying, whether this machine can run an agent. It leaves nothing behind.
func Check(ctx context.Context, cfg Config) []Requirement {
	return check(ctx, cfg, datapath.Probe(cfg.BPFDir))
}

// checkBeforeStart leaves out what the start itself finds out before it changes anything.
func checkBeforeStart(ctx context.Context, cfg Config) []Requirement {
	return check(ctx, cfg, datapath.ProbeBeforeOpen(cfg.BPFDir))
}

func check(ctx context.Context, cfg Config, ofDatapath []datapath.Requirement) []Requirement {
	var requirements []Requirement
	for _, r := range ofDatapath {
		requirements = append(requirements, Requirement(r))
	}
	for _, r := range netfilter.Probe(ctx, cfg.IPTables) {
		requirements = append(requirements, Requirement(r))
	}
	requirements = append(requirements, Requirement(conntrack.Probe()))
	resolvers := Requirement{Name: "trusted resolvers", Met: true}
	if found, err := cfg.resolvers(); err != nil {
		resolvers.Met, resolvers.Detail, resolvers.Remedy = false, err.Error(), "name them with --trusted-resolver"
	} else {
		resolvers.Detail = fmt.Sprint(found)
	}
	return append(requirements, resolvers)
}

// AllMet reports whether every requirement is met.
func AllMet(requirements []Requirement) bool {
	for _, r := range requirements {
		if !r.Met {
			return false
		}
	}
	return true
}

// WriteTable writes requirements for a person: what is not met with its remedy below it.
func WriteTable(w io.Writer, requirements []Requirement) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "REQUIREMENT\tMET\tDETAIL")
	for _, r := range requirements {
		met := "yes"
		if !r.Met {
			met = "NO"
		}
		// A detail of several lines stays in its column.
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Name, met, strings.ReplaceAll(r.Detail, "\n", "\n\t\t"))
		if r.Remedy != "" {
			fmt.Fprintf(t, "\t\t→ %s\n", r.Remedy)
		}
	}
	return t.Flush() //nolint:wrapcheck // of the caller's writer
}

// WriteJSON writes requirements for a program.
func WriteJSON(w io.Writer, requirements []Requirement) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct { //nolint:wrapcheck // of the caller's writer
		Met          bool          `json:"met"`
		Requirements []Requirement `json:"requirements"`
	}{AllMet(requirements), requirements})
}
