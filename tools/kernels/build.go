package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Where the guest has what is tested.
const (
	guestSources  = "nameward"          // the repository, for tests that read its files
	guestPrograms = "nameward-programs" // the programs, and those of tests
)

// build builds the programs, what tests build of their own, and the tests of packages, into a directory.
func build(ctx context.Context, dir string, packages []string) error {
	// Without symbols they are half as large; the guest unpacks them into its memory.
	commands := [][]string{{"build", "-ldflags=-s -w", "-o", dir + "/", "./cmd/...", "./e2e/confine"}}
	if len(packages) > 0 {
		commands = append(commands, append([]string{"test", "-c", "-ldflags=-s -w", "-o", dir + "/"}, packages...))
	}
	for _, args := range commands {
		cmd := command(ctx, "go", args...)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("go %s: %w", args[0], err)
		}
	}
	return nil
}

// testOf is the file name of the tests of a package.
func testOf(pkg string) string { return path.Base(pkg) + ".test" }

// addSources adds what git knows or would take of the repository.
func addSources(ctx context.Context, a *archive) error {
	out, err := command(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("list the sources: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if err := a.copy(guestSources+"/"+name, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// makeRoot makes the archive of all that is the same in every guest.
func makeRoot(ctx context.Context, file, programs string) error {
	a, err := newArchive(file)
	if err != nil {
		return err
	}
	built, err := filepath.Glob(programs + "/*")
	if err != nil {
		return err
	}
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "root", "etc", "var/lib", "var/tmp"} {
		if err := a.dir(dir); err != nil {
			return err
		}
	}
	err = errors.Join(
		a.text("init", initScript, 0o755),
		a.link("var/run", "../run"),
		a.text("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n", 0o644),
		a.text("etc/resolv.conf", "", 0o644),
		a.text("etc/nsswitch.conf", "hosts: files dns\n", 0o644),
		a.tree(guestPrograms, programs),
		addSources(ctx, a),
		addUserland(ctx, a, built),
	)
	if closing := a.close(); err == nil {
		err = closing
	}
	return err
}
