package netfilter

import (
	"context"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inScratch runs f in a network namespace that exists only for this, where it may write what it likes. It
// returns an error where the process may not make one: then f did not run.
func inScratch(f func()) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open network namespace: %w", err)
	}
	defer home.Close() //nolint:errcheck // only read
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("make network namespace: %w", err)
	}
	defer func() {
		if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil { //nolint:gosec // a descriptor
			// What follows would work on the wrong machine.
			panic(fmt.Sprintf("return to the network namespace: %v", err))
		}
		runtime.UnlockOSThread()
	}()
	f()
	return nil
}

// rehearse lets iptables-restore do all of a transaction but the last step: it asks the kernel for each
// match and target, and writes nothing.
func (t tools) rehearse(ctx context.Context, transaction string) error {
	_, err := run(ctx, transaction, t.restorer, "--test", "--noflush")
	return err
}

// probeChain is the transaction that makes a chain of one rule, which nothing jumps to.
func probeChain(table, rule string) string {
	return fmt.Sprintf("*%s\n:%sPROBE - [0:0]\n-A %sPROBE %s\nCOMMIT\n", table, chainPrefix, chainPrefix, rule)
}

// writeAll writes every rule as an agent would, and reads it back.
func (f *family) writeAll(ctx context.Context) error {
	for _, t := range f.tables {
		if _, err := f.ensure(ctx, t, func([]string) {}); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

// rehearseAll rehearses them instead.
func (f *family) rehearseAll(ctx context.Context) error {
	for _, t := range f.tables {
		before, err := f.read(ctx, t)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
		if err := f.tools.rehearse(ctx, t.transaction(before)); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}
