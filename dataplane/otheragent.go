package dataplane

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/preflight"
)

const stopOther = "stop the other agent: one enforces on a network namespace. What it left goes with `nameward-agent cleanup` and its flags"

// anotherNamespace looks whether the rules of this network namespace are kept by an agent that runs with
// another directory of pins: the two would mend each other's rules forever.
func anotherNamespace(ctx context.Context, cfg Config) preflight.Requirement {
	const name = "one agent for the rules"
	pins, err := netfilter.Pins(ctx)
	if err != nil {
		return preflight.Warn(name, err.Error(), "see what fails, and check again")
	}
	for _, pin := range pins {
		dir := datapath.PinDir(pin)
		if same(dir, cfg.BPFDir) {
			continue
		}
		if held, who, err := lockedBy(dir); err == nil && held {
			return preflight.Fail(name, fmt.Sprintf("an agent%s keeps rules here, with its pins in %s", who, dir), stopOther)
		}
	}
	return preflight.Found(name, "no rules of another agent that runs")
}

// anotherAgent looks for an agent that holds the directories of this configuration.
func anotherAgent(cfg Config) preflight.Requirement {
	const name = "another agent"
	pins, whoPins, errPins := lockedBy(cfg.BPFDir)
	state, whoState, errState := lockedBy(filepath.Join(cfg.StateDir, lockFile))
	switch err := errors.Join(errPins, errState); {
	case err != nil:
		return preflight.Warn(name, err.Error(), "check as root")
	case pins && state && whoPins == whoState:
		return preflight.Warn(name, "an agent runs with these directories"+whoState, "nothing, if it is the one that you meant to check: a second would not start")
	case pins:
		return preflight.Fail(name, fmt.Sprintf("an agent%s runs with %s and another state directory", whoPins, cfg.BPFDir), stopOther)
	case state:
		return preflight.Fail(name, fmt.Sprintf("an agent%s runs with %s and another directory of pins", whoState, cfg.StateDir), stopOther)
	}
	return preflight.Found(name, "none runs")
}

func same(a, b string) bool {
	resolve := func(path string) string {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real
		}
		return filepath.Clean(path)
	}
	return resolve(a) == resolve(b)
}
