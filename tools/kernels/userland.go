package main

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// userlandPackages are those whose files the guest gets, as they are installed on this machine.
var userlandPackages = []string{
	"bash", "dash", "coreutils", "util-linux", "mount", "kmod", "procps", "netbase", "grep", "sed",
	"iproute2", "iptables", "nftables", "ipset", "knot", "unbound", "dnsmasq-base",
}

// machineFiles are of this machine and of no package.
var machineFiles = []string{"/etc/passwd", "/etc/group"}

// unneeded is what the guest does without.
var unneeded = []string{
	"/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/info", "/usr/share/lintian",
	"/usr/share/bash-completion", "/usr/share/bug", "/usr/include", "/var", "/usr/lib/udev",
}

// libraryDirs is where the loader looks.
var libraryDirs = []string{"/usr/lib/x86_64-linux-gnu", "/usr/lib"}

// addUserland adds the files of the packages, and the libraries that these and the programs need.
func addUserland(ctx context.Context, a *archive, programs []string) error {
	for _, name := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := errors.Join(a.dir("usr/"+name), a.link(name, "usr/"+name)); err != nil {
			return err
		}
	}
	for _, name := range userlandPackages {
		out, err := command(ctx, "dpkg-query", "-L", name).Output()
		if err != nil {
			return fmt.Errorf("package %s is not installed (make kernels installs what is missing)", name)
		}
		for path := range strings.Lines(string(out)) {
			if err := addInstalled(a, strings.TrimSpace(path)); err != nil {
				return fmt.Errorf("package %s: %w", name, err)
			}
		}
	}
	for _, path := range machineFiles {
		if err := a.copy(strings.TrimPrefix(path, "/"), path); err != nil {
			return err
		}
	}
	for _, program := range programs {
		if err := addLibraries(a, program); err != nil {
			return err
		}
	}
	return nil
}

// addInstalled adds a file of a package, unless the guest does without. What this machine has removed is not
// missed.
func addInstalled(a *archive, path string) error {
	for _, prefix := range unneeded {
		if path == prefix || strings.HasPrefix(path, prefix+"/") {
			return nil
		}
	}
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	name := mergedName(path)
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return a.link(name, target)
	case info.Mode().IsRegular():
		if err := a.copy(name, path); err != nil {
			return err
		}
		return addLibraries(a, path)
	}
	return nil
}

// mergedName is the name in the archive, where /bin is a link to /usr/bin.
func mergedName(path string) string {
	path = strings.TrimPrefix(filepath.Clean(path), "/")
	switch top, _, _ := strings.Cut(path, "/"); top {
	case "bin", "sbin", "lib", "lib64":
		return "usr/" + path
	}
	return path
}

// addLibraries adds what the loader loads for a file, if it is one for the loader.
func addLibraries(a *archive, path string) error {
	file, err := elf.Open(path)
	if err != nil {
		return nil //nolint:nilerr // it is none
	}
	defer file.Close() //nolint:errcheck // read only
	needs, err := file.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, segment := range file.Progs {
		if segment.Type == elf.PT_INTERP {
			loader := make([]byte, segment.Filesz)
			if _, err := segment.ReadAt(loader, 0); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			loader = loader[:len(loader)-1]
			if err := a.copy(mergedName(string(loader)), string(loader)); err != nil {
				return err
			}
		}
	}
	for _, need := range needs {
		if err := addLibrary(a, need); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

func addLibrary(a *archive, name string) error {
	for _, dir := range libraryDirs {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			continue
		}
		if a.has(mergedName(path)) {
			return nil
		}
		if err := a.copy(mergedName(path), path); err != nil {
			return err
		}
		return addLibraries(a, path)
	}
	return fmt.Errorf("library %s is in none of %q", name, libraryDirs)
}
