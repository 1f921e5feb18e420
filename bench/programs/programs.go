// Package programs builds what is measured in processes of its own: server and agent of this working tree, and the
// baselines beside them. One run of the bench builds them once, so that all that it measures is of one tree.
package programs

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
)

// Names of the programs in their directory.
const (
	Server   = "nameward-server"
	Agent    = "nameward-agent"
	Bare     = "bare"     // a gRPC server that does nothing but send
	Baseline = "baseline" // what others do with a client's DNS
)

const module = "github.com/nameward/nameward/"

var folders = map[string]string{
	Server: "cmd/nameward-server", Agent: "cmd/nameward-agent", Bare: "bench/fleet/bare", Baseline: "bench/traffic/baseline",
}

// Build builds programs into a directory, as they are released.
func Build(ctx context.Context, dir string, programs ...string) error {
	args := []string{"build", "-trimpath", "-ldflags=-s -w", "-o", dir + string(filepath.Separator)}
	for _, program := range programs {
		args = append(args, module+folders[program])
	}
	if out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput(); err != nil { //nolint:gosec // from above
		return fmt.Errorf("build programs: %w: %s", err, out)
	}
	return nil
}
