package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"strings"
)

// A bootable is a kernel that is ready to be booted.
type bootable struct {
	image   string // an ELF file
	modules string // an archive
	release string // what uname says
	lacking []string
}

// prepare unpacks a package into the cache, once.
func prepare(ctx context.Context, cache, deb string) (*bootable, error) {
	dir := filepath.Join(cache, strings.TrimSuffix(filepath.Base(deb), ".deb")+"."+moduleKey())
	if _, err := os.Stat(dir); err != nil {
		work, err := os.MkdirTemp(cache, "unpack-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(work) //nolint:errcheck // as good as it gets
		if err := unpack(ctx, deb, work); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", filepath.Base(deb), err)
		}
		err = os.Rename(filepath.Join(work, "ready"), dir)
		if _, other := os.Stat(dir); err != nil && other != nil { // or another run has been faster
			return nil, err
		}
	}
	return openBootable(dir)
}

func openBootable(dir string) (*bootable, error) {
	release, err := os.ReadFile(filepath.Join(dir, "release"))
	if err != nil {
		return nil, err
	}
	known, err := readModules(dir)
	if err != nil {
		return nil, err
	}
	names, err := readModuleNames(agentModules)
	if err != nil {
		return nil, err
	}
	return &bootable{
		image: filepath.Join(dir, "vmlinux"), modules: filepath.Join(dir, "modules.cpio"), release: string(release),
		lacking: known.lacks(names),
	}, nil
}

// moduleKey is another one when the guest gets other modules.
func moduleKey() string {
	sum := fnv.New32()
	_, _ = fmt.Fprint(sum, moduleDirs, moduleNames)
	return fmt.Sprintf("%08x", sum.Sum32())
}

// unpack makes a directory "ready" in a directory for work.
func unpack(ctx context.Context, deb, work string) error {
	root, ready, tree := filepath.Join(work, "root"), filepath.Join(work, "ready"), filepath.Join(work, "modules")
	if err := os.Mkdir(ready, 0o755); err != nil { //nolint:gosec // no secrets
		return err
	}
	if out, err := command(ctx, "dpkg-deb", "-x", deb, root).CombinedOutput(); err != nil {
		return fmt.Errorf("dpkg-deb: %w\n%s", err, out)
	}
	dirs, err := filepath.Glob(filepath.Join(root, "lib/modules/*"))
	if len(dirs) == 0 { // of a distribution whose packages know that /lib is /usr/lib
		dirs, err = filepath.Glob(filepath.Join(root, "usr/lib/modules/*"))
		root = filepath.Join(root, "usr")
	}
	if err != nil || len(dirs) != 1 {
		return fmt.Errorf("it has modules in %d directories: %q", len(dirs), dirs)
	}
	from, release := dirs[0], filepath.Base(dirs[0])
	if err := depmod(ctx, root, release); err != nil {
		return err
	}
	all, err := readModules(from)
	if err != nil {
		return err
	}
	for _, name := range []string{"modules.dep", "modules.builtin"} { // to tell what the kernel lacks
		if err := concatenate(filepath.Join(ready, name), filepath.Join(from, name)); err != nil {
			return err
		}
	}
	if err := writeImage(ctx, filepath.Join(work, "root/boot/vmlinuz-"+release), filepath.Join(ready, "vmlinux")); err != nil {
		return err
	}
	if err := copyModules(ctx, from, tree, release, all.wanted()); err != nil {
		return err
	}
	if err := archiveModules(filepath.Join(ready, "modules.cpio"), filepath.Join(tree, "lib/modules")); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(ready, "release"), []byte(release), 0o600)
}

func writeImage(ctx context.Context, from, to string) error {
	compressed, err := os.ReadFile(from) //nolint:gosec // of the package
	if err != nil {
		return err
	}
	vmlinux, err := uncompress(ctx, compressed)
	if err != nil {
		return fmt.Errorf("uncompress the kernel: %w", err)
	}
	return os.WriteFile(to, vmlinux, 0o600)
}

func archiveModules(to, from string) error {
	a, err := newArchive(to)
	if err != nil {
		return err
	}
	if err := a.tree("usr/lib/modules", from); err != nil {
		return err
	}
	return a.close()
}
