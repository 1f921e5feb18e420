// Command namewardctl administers a fleet: it writes policies to the policy server, and reads
// policies, nodes and mappings from it, or from one node's agent over its Unix socket.
//
// Results go to standard output, messages to standard error. It exits with 0 when done, 1 when
// something failed, 2 when it was called wrongly, and 3 when explain finds that a connection is denied.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
