package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nameward/nameward/dataplane/datapath"
	"github.com/nameward/nameward/dataplane/localserver"
	"github.com/nameward/nameward/dataplane/netfilter"
	"github.com/nameward/nameward/dataplane/subscribe"
)

// Cleanup removes everything that an agent made on this node, and names it: rules first, since
// iptables-legacy opens the pins that they name at each write, then pins, then files. It refuses while
// an agent runs. Where nothing is left it removes nothing and succeeds.
func Cleanup(ctx context.Context, cfg Config) ([]string, error) {
	release, err := lockForCleanup(cfg)
	if err != nil {
		return nil, err
	}
	defer release()
	removed, err := netfilter.Remove(ctx)
	if err != nil {
		return removed, fmt.Errorf("remove rules; pins and files stay, since rules may need them: %w", err)
	}
	var errs []error
	steps := []func() ([]string, error){
		func() ([]string, error) { return removePins(cfg.BPFDir) },
		func() ([]string, error) { return subscribe.RemoveDisk(cfg.StateDir) },
		func() ([]string, error) { return datapath.RemoveJournal(cfg.StateDir) },
		func() ([]string, error) { return localserver.Remove(cfg.Socket) },
		func() ([]string, error) { return removeFiles(filepath.Join(cfg.StateDir, lockFile)) },
	}
	for _, step := range steps {
		names, err := step()
		removed = append(removed, names...)
		errs = append(errs, err)
	}
	// What else is in them is not ours, and keeps them.
	for _, dir := range []string{cfg.StateDir, filepath.Dir(cfg.Socket)} {
		if os.Remove(dir) == nil {
			removed = append(removed, dir)
		}
	}
	return removed, errors.Join(errs...)
}

// lockForCleanup locks what is there. Where there is no lock there is no agent: it must not make what it
// then would have to remove.
func lockForCleanup(cfg Config) (release func(), err error) {
	var held []*lock
	release = func() {
		for _, l := range held {
			_ = l.release() // nothing was written
		}
	}
	for _, l := range []struct {
		path string
		take func() (*lock, error)
	}{
		{filepath.Join(cfg.StateDir, lockFile), func() (*lock, error) { return takeLock(cfg.StateDir) }},
		{cfg.BPFDir, func() (*lock, error) { return takeDirLock(cfg.BPFDir) }},
	} {
		if _, err := os.Stat(l.path); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		taken, err := l.take()
		if err != nil {
			release()
			return nil, fmt.Errorf("%w: stop it first", err)
		}
		held = append(held, taken)
	}
	return release, nil
}

func removePins(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, nil
	}
	if err := datapath.Remove(dir); err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	return []string{"pins below " + dir}, nil
}

func removeFiles(paths ...string) ([]string, error) {
	var removed []string
	for _, path := range paths {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return removed, fmt.Errorf("remove file: %w", err)
		}
		removed = append(removed, path)
	}
	return removed, nil
}
