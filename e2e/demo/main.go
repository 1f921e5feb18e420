// Command demo shows the main job on a small internet in network namespaces, step by step. It makes
// everything it needs and removes it again, also when it is interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/nameward/nameward/e2e/lab"
)

func main() {
	bin := flag.String("bin", "bin", "directory of the three programs")
	backend := flag.String("iptables", "auto", "iptables backend: auto, nft or legacy")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := show(ctx, *bin, *backend); err != nil {
		if ctx.Err() != nil {
			fmt.Fprintln(os.Stderr, "\nInterrupted; everything the demo made is removed.")
		} else {
			fmt.Fprintln(os.Stderr, "\ndemo:", err)
		}
		stop()
		os.Exit(1) //nolint:gocritic // stop has run
	}
}

func show(ctx context.Context, bin, backend string) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make network namespaces and load BPF programs: sudo make demo")
	}
	bin, err = filepath.Abs(bin)
	if err != nil {
		return err
	}
	title()
	l, err := lab.New(ctx, bin)
	if err != nil {
		return err
	}
	told := false
	defer func() {
		if err = errors.Join(err, l.Close()); err == nil && told {
			end()
		}
	}()
	s := &story{Lab: l, ctx: ctx, backend: backend}
	for i, chapter := range s.chapters() {
		if err := ctx.Err(); err != nil {
			return err
		}
		heading(i+1, chapter.title)
		if err := chapter.tell(); err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, chapter.title, err)
		}
	}
	told = true
	return nil
}
