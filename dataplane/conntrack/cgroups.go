package conntrack

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

const mountInfo = "/proc/self/mountinfo"

// cgroupPaths returns the paths of all control groups by their ids, from the root; none where there is no
// cgroup2 hierarchy that begins at the root.
func cgroupPaths() map[uint64]string {
	paths := map[uint64]string{}
	root := cgroupMount()
	if root == "" {
		return paths
	}
	_ = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil // one that is gone meanwhile
		}
		if info, err := entry.Info(); err == nil {
			if stat, ok := info.Sys().(*syscall.Stat_t); ok {
				paths[stat.Ino] = "/" + strings.TrimPrefix(strings.TrimPrefix(path, root), "/")
			}
		}
		return nil
	})
	return paths
}

// cgroupMount returns where the cgroup2 hierarchy is mounted; empty for nowhere.
func cgroupMount() string {
	content, err := os.ReadFile(mountInfo)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(content)) {
		// proc_pid_mountinfo(5): id, parent, device, root, mount point, options, optional fields, `-`, type.
		fields := strings.Fields(line)
		_, kind, _ := strings.Cut(line, " - ")
		if len(fields) >= 5 && fields[3] == "/" && strings.HasPrefix(kind, "cgroup2 ") {
			return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[4])
		}
	}
	return ""
}
