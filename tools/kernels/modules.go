package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// moduleDirs and moduleNames are what tests may ask the kernel for. What these need comes too, but for what
// they ask for by another name: connection tracking and nftables a checksum.
var (
	moduleDirs  = []string{"kernel/net/netfilter/", "kernel/net/ipv4/", "kernel/net/ipv6/", "kernel/net/bridge/", "kernel/net/sched/"}
	moduleNames = []string{"veth", "tun", "dummy", "8021q", "udp_diag", "tcp_diag", "crc32c_generic", "crc32c_intel"}
)

// agentModules is the list of modules that an operator's machine loads for the agent.
const agentModules = "deployments/modules-load.d/nameward.conf"

// modules is which modules a kernel's package has.
type modules struct {
	needs   map[string][]string // path of a module → paths of those that it needs
	builtin []string            // paths
}

// readModules reads the lists that depmod makes.
func readModules(dir string) (modules, error) {
	m := modules{needs: map[string][]string{}}
	text, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		if module, needs, ok := strings.Cut(line, ":"); ok {
			m.needs[module] = strings.Fields(needs)
		}
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	m.builtin = strings.Fields(string(builtin))
	return m, err
}

// name of the module at a path, as modprobe knows it.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(path), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// wanted gives the paths of the modules that the guest gets.
func (m modules) wanted() []string {
	want := map[string]bool{}
	for path, needs := range m.needs {
		inDir := func(dir string) bool { return strings.HasPrefix(path, dir) }
		if slices.ContainsFunc(moduleDirs, inDir) || slices.Contains(moduleNames, moduleName(path)) {
			want[path] = true
			for _, need := range needs {
				want[need] = true
			}
		}
	}
	paths := make([]string, 0, len(want))
	for path := range want {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

// lacks gives those of the names that the kernel has neither as a module nor built in.
func (m modules) lacks(names []string) []string {
	var lacking []string
	for _, name := range names {
		is := func(path string) bool { return moduleName(path) == strings.ReplaceAll(name, "-", "_") }
		found := slices.ContainsFunc(m.builtin, is)
		for path := range m.needs {
			found = found || is(path)
		}
		if !found {
			lacking = append(lacking, name)
		}
	}
	return lacking
}

// readModuleNames reads a file of modules-load.d.
func readModuleNames(path string) ([]string, error) {
	text, err := os.ReadFile(path) //nolint:gosec // of the repository
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names, nil
}

// copyModules copies modules into another tree, uncompressed, which the guest would be slow at.
func copyModules(ctx context.Context, from, to, release string, paths []string) error {
	var compressed []string
	for _, path := range paths {
		target := filepath.Join(to, "lib/modules", release, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil { //nolint:gosec // no secrets
			return err
		}
		if err := os.Rename(filepath.Join(from, path), target); err != nil {
			return err
		}
		if strings.HasSuffix(path, ".xz") {
			compressed = append(compressed, target)
		} else if !strings.HasSuffix(path, ".ko") {
			return fmt.Errorf("module %s is compressed in an unknown way", path)
		}
	}
	if len(compressed) > 0 {
		if out, err := command(ctx, "xz", append([]string{"-d"}, compressed...)...).CombinedOutput(); err != nil {
			return fmt.Errorf("uncompress modules: %w\n%s", err, out)
		}
	}
	for _, name := range []string{"modules.builtin", "modules.builtin.modinfo", "modules.order"} {
		if err := os.Rename(filepath.Join(from, name), filepath.Join(to, "lib/modules", release, name)); err != nil {
			return err
		}
	}
	return depmod(ctx, to, release)
}

func depmod(ctx context.Context, root, release string) error {
	if out, err := command(ctx, "depmod", "-b", root, release).CombinedOutput(); err != nil {
		return fmt.Errorf("depmod: %w\n%s", err, out)
	}
	return nil
}
