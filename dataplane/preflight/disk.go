package preflight

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Space on the disk of the state directory. A rule set as large as any and the journal of as many mappings
// as a node holds by default need less than ample.
const (
	ampleBytes = 128 << 20
	leastBytes = 4 << 20
)

// StateDir checks that files can be written where the agent keeps them, by writing one.
func StateDir(dir string) Requirement {
	const name = "state directory"
	const remedy = "make it writable by the agent (StateDirectory= of the systemd unit), on a disk that is not read-only, or name another with --state-dir"
	existing, info, err := nearest(dir)
	if err != nil {
		return Fail(name, err.Error(), remedy)
	}
	if err := writeSome(existing); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			return Fail(name, err.Error(), fmt.Sprintf("make room on the disk of %s", existing))
		}
		return Fail(name, err.Error(), remedy)
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(existing, &disk); err != nil {
		return Fail(name, fmt.Sprintf("look for room in %s: %v", existing, err), remedy)
	}
	free := disk.Bavail * uint64(disk.Bsize) //nolint:gosec // a size
	if r := judgeRoom(name, existing, free); r.Level != OK {
		return r
	}
	if existing == dir && info.Mode().Perm()&0o077 != 0 {
		return Warn(name, fmt.Sprintf("%s has mode %04o: others than its owner may look into it", dir, info.Mode().Perm()), "chmod 0700 "+dir)
	}
	return Found(name, fmt.Sprintf("%s, %d MiB free", dir, free>>20))
}

func judgeRoom(name, dir string, free uint64) Requirement {
	detail, remedy := fmt.Sprintf("%d KiB are free for %s", free>>10, dir), "make room on the disk of "+dir
	switch {
	case free < leastBytes:
		return Fail(name, detail, remedy)
	case free < ampleBytes:
		return Warn(name, detail, remedy+fmt.Sprintf(": %d MiB are enough", ampleBytes>>20))
	}
	return Found(name, detail)
}

// nearest returns the directory, or the one above it that it would be made in.
func nearest(dir string) (string, fs.FileInfo, error) {
	for {
		info, err := os.Stat(dir)
		switch {
		case err == nil && !info.IsDir():
			return "", nil, fmt.Errorf("%s is no directory", dir)
		case err == nil:
			return dir, info, nil
		case !errors.Is(err, fs.ErrNotExist) || filepath.Dir(dir) == dir:
			return "", nil, fmt.Errorf("look at directory: %w", err)
		}
		dir = filepath.Dir(dir)
	}
}

func writeSome(dir string) (err error) {
	file, err := os.CreateTemp(dir, ".nameward-check-")
	if err != nil {
		return fmt.Errorf("make file: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(file.Name())) }()
	if _, err := file.Write(make([]byte, 4096)); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("write file: %w", err)
	}
	return nil
}
