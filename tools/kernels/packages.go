package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// errNoNetwork is that of a machine on which no source of packages answers.
var errNoNetwork = errors.New("no source of packages answers, and none is in the cache")

// fetch gives the file of the newest package of a kernel that this machine's sources have, from the cache if it
// is there.
func fetch(ctx context.Context, cache string, k kernel) (string, error) {
	file, err := newest(ctx, cache, k)
	if err == nil {
		return file, nil
	}
	// The lists of packages may be old, or empty.
	answered, update := updateLists(ctx)
	if file, again := newest(ctx, cache, k); again == nil {
		return file, nil
	} else if answered {
		return "", fmt.Errorf("kernel %s: %w", k, again)
	}
	if file := cached(cache, k); file != "" {
		fmt.Fprintf(os.Stderr, "kernels: %s: no source of packages answers; taking %s\n", k, filepath.Base(file))
		return file, nil
	}
	if update != nil {
		return "", fmt.Errorf("kernel %s: %w, and the lists of packages cannot be updated: %w", k, err, update)
	}
	return "", fmt.Errorf("kernel %s: %w: %w", k, errNoNetwork, err)
}

func newest(ctx context.Context, cache string, k kernel) (string, error) {
	name, err := imageOf(ctx, k)
	if err != nil {
		return "", err
	}
	version, err := versionOf(ctx, name)
	if err != nil {
		return "", err
	}
	file := filepath.Join(cache, fmt.Sprintf("%s_%s_amd64.deb", name, strings.ReplaceAll(version, ":", "%3a")))
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	fmt.Fprintf(os.Stderr, "kernels: downloading %s %s\n", name, version)
	// Into a directory of its own, so that what is in the cache is whole.
	dir, err := os.MkdirTemp(cache, "download-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // as good as it gets
	download := command(ctx, "apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", name+"="+version)
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		return "", fmt.Errorf("download %s: %w\n%s", name, err, out)
	}
	return file, os.Rename(filepath.Join(dir, filepath.Base(file)), file)
}

// imageOf gives the name of the newest package of a kernel.
func imageOf(ctx context.Context, k kernel) (string, error) {
	for _, meta := range k.metapackages() {
		out, err := command(ctx, "apt-cache", "depends", meta).Output()
		if err != nil {
			continue // there is none of that name
		}
		for line := range strings.Lines(string(out)) {
			if name, ok := strings.CutPrefix(strings.TrimLeft(line, " |"), "Depends: "); ok && k.isImage(strings.TrimSpace(name)) {
				return strings.TrimSpace(name), nil
			}
		}
	}
	return "", fmt.Errorf("no package: none of %s depends on an image of it", strings.Join(k.metapackages(), ", "))
}

func versionOf(ctx context.Context, name string) (string, error) {
	out, err := command(ctx, "apt-cache", "show", "--no-all-versions", name).Output()
	if err != nil {
		return "", fmt.Errorf("ask for the version of %s: %w", name, err)
	}
	for line := range strings.Lines(string(out)) {
		if version, ok := strings.CutPrefix(line, "Version: "); ok {
			return strings.TrimSpace(version), nil
		}
	}
	return "", fmt.Errorf("package %s has no version", name)
}

// updateLists asks the sources what they have, and says whether any answered. An error is one that has nothing
// to do with the network.
func updateLists(ctx context.Context) (answered bool, err error) {
	out, err := command(ctx, "apt-get", "-q", "update").CombinedOutput()
	if anySourceAnswered(string(out)) {
		return true, nil
	}
	if err != nil && !strings.Contains(string(out), "Failed to fetch") {
		return false, fmt.Errorf("apt-get update: %w\n%s", err, out)
	}
	return false, nil
}

// anySourceAnswered reads what `apt-get update` says.
func anySourceAnswered(output string) bool {
	return slices.ContainsFunc(strings.Split(output, "\n"), func(line string) bool {
		return strings.HasPrefix(line, "Hit:") || strings.HasPrefix(line, "Get:")
	})
}

// cached gives the package of a kernel that was downloaded last, or nothing.
func cached(cache string, k kernel) string {
	entries, _ := os.ReadDir(cache)
	var last os.FileInfo
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && k.isImage(entry.Name()) && strings.HasSuffix(entry.Name(), ".deb") &&
			(last == nil || info.ModTime().After(last.ModTime())) {
			last = info
		}
	}
	if last == nil {
		return ""
	}
	return filepath.Join(cache, last.Name())
}

// command is a program whose words are read by this one.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd
}
