package dataplane

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const lockFile = "agent.lock"

// lock says that an agent works on a state directory. The kernel lets go of it when the process ends.
type lock struct{ file *os.File }

// takeLock takes the lock of a directory that exists.
func takeLock(dir string) (*lock, error) {
	file, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor
		defer file.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("take lock: %w", err)
		}
		holder, _ := os.ReadFile(file.Name()) // without it the message only says less
		return nil, fmt.Errorf("an agent is running on %s (pid %s)", dir, strings.TrimSpace(string(holder)))
	}
	if err := errors.Join(file.Truncate(0), writePID(file)); err != nil {
		return nil, errors.Join(fmt.Errorf("write lock: %w", err), file.Close())
	}
	return &lock{file}, nil
}

func writePID(file *os.File) error {
	_, err := fmt.Fprintf(file, "%d\n", os.Getpid())
	return err
}

func (l *lock) release() error { return l.file.Close() }
