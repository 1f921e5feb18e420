// Command nameward-agent enforces on one node which domain names its workloads may reach, as the
// policy server says. Each flag may also be given as an environment variable (NAMEWARD_ and the
// flag's name) or as a key of the YAML file that --config names; a flag wins over the environment,
// and that over the file.
//
// It exits with 0 when done, 1 when something failed, and 2 when it was called wrongly.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
