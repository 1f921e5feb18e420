package dataplane

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const lockFile = "agent.lock"

// A check holds a lock for a moment, to see whether it is free: who starts an agent tries a few times.
const (
	lockTries = 5
	lockPause = 20 * time.Millisecond
)

// errRunning is wrapped by errors that say that an agent runs.
var errRunning = errors.New("an agent is running")

// lock says that an agent works on a directory. The kernel lets go of it when the process ends.
type lock struct{ file *os.File }

// takeLock takes the lock of a state directory that exists: that of a file in it, which only the owner of
// the directory may open.
func takeLock(dir string) (*lock, error) {
	path := filepath.Join(dir, lockFile)
	held, err := acquire(path, func() (*os.File, error) { return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) })
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	// On a full disk it cannot be written. An agent enforces without it.
	if held.file.Truncate(0) == nil {
		_, _ = fmt.Fprintf(held.file, "%d\n", os.Getpid())
	}
	return held, nil
}

// takeDirLock takes the lock of a directory of pins that exists: that of the directory itself, since a bpf
// file system holds no files. It is the same under whatever path, mount or symbolic link.
func takeDirLock(dir string) (*lock, error) {
	held, err := acquire(dir, func() (*os.File, error) { return os.Open(dir) })
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return held, nil
}

// acquire locks what is open and still there: between open and lock, cleanup may have removed it.
func acquire(path string, open func() (*os.File, error)) (*lock, error) {
	for try := 1; ; try++ {
		file, err := open()
		if err != nil {
			return nil, fmt.Errorf("open lock: %w", err)
		}
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor
		if err == nil && isAt(file, path) {
			return &lock{file}, nil
		}
		held := errors.Is(err, unix.EWOULDBLOCK)
		if held && try >= lockTries {
			err = fmt.Errorf("%w%s", errRunning, holder(file))
		}
		_ = file.Close() // nothing was written
		if err != nil && !held || try >= lockTries {
			return nil, err //nolint:wrapcheck // the caller names the directory
		}
		if held {
			time.Sleep(lockPause)
		}
	}
}

func isAt(file *os.File, path string) bool {
	opened, errOpened := file.Stat()
	there, errThere := os.Stat(path)
	return errOpened == nil && errThere == nil && os.SameFile(opened, there)
}

func (l *lock) release() error { return l.file.Close() }

// lockedBy reports whether somebody holds the lock of a file or directory, and who, as far as that can be
// told. What does not exist nobody holds.
func lockedBy(path string) (held bool, who string, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, "", nil
	}
	if err != nil {
		return false, "", fmt.Errorf("open lock: %w", err)
	}
	defer file.Close()                                          //nolint:errcheck // only read
	err = unix.Flock(int(file.Fd()), unix.LOCK_SH|unix.LOCK_NB) //nolint:gosec // a descriptor
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, holder(file), nil
	}
	if err != nil {
		return false, "", fmt.Errorf("try lock: %w", err)
	}
	return false, "", nil
}

// holder returns " (pid N)" of who holds a lock: as the kernel lists it, or as the holder wrote it; nothing
// when neither says.
func holder(file *os.File) string {
	if pid := listedHolder(file); pid != "" {
		return " (pid " + pid + ")"
	}
	text, err := os.ReadFile(file.Name())
	if err != nil || len(text) == 0 {
		return ""
	}
	return " (pid " + strings.TrimSpace(string(text)) + ")"
}

// listedHolder reads proc_locks(5): `1: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF`.
func listedHolder(file *os.File) string {
	var stat unix.Stat_t
	if unix.Fstat(int(file.Fd()), &stat) != nil { //nolint:gosec // a descriptor
		return ""
	}
	list, err := os.Open("/proc/locks")
	if err != nil {
		return ""
	}
	defer list.Close() //nolint:errcheck // only read
	identity := fmt.Sprintf("%02x:%02x:%d", unix.Major(stat.Dev), unix.Minor(stat.Dev), stat.Ino)
	for lines := bufio.NewScanner(list); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) >= 6 && fields[1] == "FLOCK" && fields[3] == "WRITE" && fields[5] == identity {
			if pid, err := strconv.Atoi(fields[4]); err == nil && pid > 0 {
				return fields[4]
			}
		}
	}
	return ""
}
