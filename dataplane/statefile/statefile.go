// Package statefile reads, writes and sets aside the files in which an agent keeps what must outlive it.
// A file comes back as it was written or not at all: what is cut short is the reader's to see, by a
// checksum; that somebody else could have written it is seen here.
package statefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUntrusted is wrapped when what lies at a path is no file that this agent wrote.
var ErrUntrusted = errors.New("it is not the agent's own")

// Read returns the content of a file that nobody but this user could have written.
func Read(path string) ([]byte, error) {
	// Without O_NONBLOCK a pipe in the file's place would hold the agent up for good.
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("open %s: %w: a symbolic link", path, ErrUntrusted)
	}
	if err != nil {
		return nil, fmt.Errorf("open state file: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("inspect state file: %w", err)
	}
	if err := trusted(info); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	content, err := io.ReadAll(file)
	if err != nil {
		return nil, fmt.Errorf("read state file: %w", err)
	}
	return content, nil
}

// Check returns an error that wraps ErrUntrusted for what Read would not read. What does not exist is no
// fault.
func Check(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("inspect state file: %w", err)
	}
	if err := trusted(info); err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	return nil
}

func trusted(info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%w: no regular file but %v", ErrUntrusted, info.Mode())
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%w: others may write it (mode %v)", ErrUntrusted, info.Mode())
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() { //nolint:forcetypeassert // what Stat returns on Linux
		return fmt.Errorf("%w: it belongs to user %d", ErrUntrusted, owner)
	}
	return nil
}

// Write puts content in place of what was at path, whole and for good: a reader finds the one or the
// other, also after a loss of power. On error what was there stays.
func Write(path string, content []byte) error {
	temporary := Unfinished(path)
	if err := writeSynced(temporary, content); err != nil {
		// What is half written takes room that may be what was lacking.
		return errors.Join(err, remove(temporary))
	}
	if err := os.Rename(temporary, path); err != nil {
		return errors.Join(fmt.Errorf("put state file in place: %w", err), remove(temporary))
	}
	return syncDirectory(filepath.Dir(path))
}

// Unfinished is where Write writes before it puts a file in place.
func Unfinished(path string) string { return path + ".new" }

// SetAside moves what lies at path, whatever it is, to where the operator may see it and no agent reads it:
// path with a suffix, in place of what was set aside there before. What does not exist is an error that
// wraps fs.ErrNotExist.
func SetAside(path, suffix string) (aside string, err error) {
	aside = path + suffix
	if _, err := os.Lstat(path); err != nil {
		return aside, fmt.Errorf("set aside: %w", err)
	}
	err = os.Rename(path, aside)
	if err != nil {
		// A directory does not replace a file, nor a file a directory.
		if err := os.RemoveAll(aside); err != nil {
			return aside, fmt.Errorf("set aside: %w", err)
		}
		err = os.Rename(path, aside)
	}
	if err != nil {
		return aside, fmt.Errorf("set aside: %w", err)
	}
	return aside, nil
}

// Secure makes a directory the agent's own: with one that others may write, they decide what is in force
// after a reboot. It returns what it mended, empty for nothing.
func Secure(dir string) (mended string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make state directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("inspect state directory: %w", err)
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() { //nolint:forcetypeassert // what Stat returns on Linux
		if err := os.Chown(dir, os.Geteuid(), os.Getegid()); err != nil {
			return "", fmt.Errorf("own state directory: %w", err)
		}
		mended = fmt.Sprintf("it belonged to user %d", owner)
	}
	if info.Mode().Perm()&0o022 != 0 {
		if err := os.Chmod(dir, info.Mode().Perm()&^0o022); err != nil {
			return mended, fmt.Errorf("close state directory to others: %w", err)
		}
		mended = fmt.Sprintf("others could write it (mode %v)", info.Mode())
	}
	return mended, nil
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove unfinished file: %w", err)
	}
	return nil
}

func writeSynced(path string, content []byte) (err error) {
	// Anew each time: what lies there may be anything.
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove unfinished file: %w", err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create file: %w", err)
	}
	defer func() {
		if closeErr := file.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("close file: %w", closeErr)
		}
	}()
	if _, err := file.Write(content); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync file: %w", err)
	}
	return nil
}

// syncDirectory makes a rename last.
func syncDirectory(dir string) error {
	file, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer file.Close()
	if err := file.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
