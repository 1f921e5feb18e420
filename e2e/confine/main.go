// Command confine runs a program under the restrictions of a systemd service, as far as they can be had
// without systemd: the capability set, no new privileges, the system call filter, the address families, and a
// file system that is read-only but for some paths.
//
//	confine -capabilities CAP_BPF,CAP_NET_ADMIN -syscalls read,write -read-write /a,/b -- PROGRAM ARG…
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	capabilities := flag.String("capabilities", "", "all that is left, numbers separated by commas")
	syscalls := flag.String("syscalls", "", "numbers of those that are allowed; empty: all")
	families := flag.String("families", "", "numbers of address families that sockets may have; empty: all")
	readWrite := flag.String("read-write", "", "paths below which files may be written; empty: everywhere")
	flag.Parse()
	runtime.LockOSThread() // what follows is of the thread, and exec makes it the process's
	err := errors.Join(
		protectFiles(list(*readWrite)),
		limitCapabilities(numbers(*capabilities)),
		filter(numbers(*syscalls), numbers(*families)),
	)
	if err == nil {
		err = execute(flag.Args())
	}
	fmt.Fprintln(os.Stderr, "confine:", err)
	os.Exit(125)
}

func list(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, ",")
}

func numbers(text string) []uint32 {
	var found []uint32
	for _, field := range list(text) {
		var n uint32
		if _, err := fmt.Sscan(field, &n); err != nil {
			panic(err)
		}
		found = append(found, n)
	}
	return found
}

// protectFiles makes every mount read-only but those paths: ProtectSystem=strict with ReadWritePaths=.
func protectFiles(readWrite []string) error {
	if len(readWrite) == 0 {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("follow the mounts of the machine: %w", err)
	}
	for _, path := range readWrite {
		if err := unix.Mount(path, path, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s: %w", path, err)
		}
	}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make files read-only: %w", err)
	}
	for _, path := range append(readWrite, "/dev", "/proc") {
		if err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return fmt.Errorf("make %s writable: %w", path, err)
		}
	}
	return nil
}

// limitCapabilities leaves in every set no others.
func limitCapabilities(left []uint32) error {
	var mask uint64
	for _, c := range left {
		mask |= 1 << c
	}
	for c := range 64 {
		if mask&(1<<c) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for i := range data {
		part := uint32(mask >> (32 * i)) //nolint:gosec // a half
		data[i] = unix.CapUserData{Effective: data[i].Effective & part, Permitted: data[i].Permitted & part}
	}
	if err := unix.Capset(&header, &data[0]); err != nil {
		return fmt.Errorf("set capabilities: %w", err)
	}
	return nil
}

func execute(command []string) error {
	path, err := exec.LookPath(command[0])
	if err != nil {
		return fmt.Errorf("find program: %w", err)
	}
	return fmt.Errorf("run %s: %w", path, unix.Exec(path, command, os.Environ()))
}
