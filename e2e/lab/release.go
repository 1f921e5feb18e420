package lab

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// An Edit makes another release: text of a file of this one, and what that has in its place.
type Edit struct{ File, Old, New string }

// BuildAgent builds the agent of another release, from the sources of this one with edits, below a directory,
// and returns its path. Programs for the kernel that are edited are compiled anew. Its wall clock is the lab's, which
// StepClock sets.
func BuildAgent(ctx context.Context, dir string, edits ...Edit) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the sources: %w", err)
	}
	source := filepath.Join(dir, "source")
	for _, part := range []string{"go.mod", "go.sum", "api", "bpf", "cmd", "dataplane", "e2e/lab/labclock"} {
		from, to := filepath.Join(strings.TrimSpace(string(root)), part), filepath.Join(source, filepath.Dir(part))
		if err := os.MkdirAll(to, 0o700); err != nil {
			return "", err
		}
		if out, err := exec.CommandContext(ctx, "cp", "-r", from, to).CombinedOutput(); err != nil {
			return "", fmt.Errorf("copy the sources: %w: %s", err, out)
		}
	}
	agent := filepath.Join(dir, "nameward-agent")
	// Without paths in what is compiled, builds below other directories share what they have in common.
	steps := [][]string{{"build", "-trimpath", "-ldflags=-s -w", "-o", agent, "./cmd/nameward-agent"}}
	for _, edit := range edits {
		if err := edit.apply(source); err != nil {
			return "", err
		}
		if strings.HasPrefix(edit.File, "bpf/") && len(steps) == 1 {
			steps = [][]string{{"generate", "./bpf/generate.go"}, steps[0]}
		}
	}
	if err := useLabClock(filepath.Join(source, "dataplane")); err != nil {
		return "", err
	}
	for _, args := range steps {
		cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // as above
		cmd.Dir = source
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", args[0], err, out)
		}
	}
	return agent, nil
}

var (
	readsClock    = regexp.MustCompile(`\btime\.(Now|Since|Until)\b`)
	packageClause = regexp.MustCompile(`(?m)^package \w+$`)
)

// useLabClock has all sources below a directory read the lab's clock.
func useLabClock(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path) //nolint:gosec // below a directory of the test
		if err != nil || !readsClock.Match(text) {
			return err
		}
		text = readsClock.ReplaceAll(text, []byte("labclock.$1"))
		clause := packageClause.FindIndex(text)
		text = slices.Concat(text[:clause[1]], []byte("\n\nimport \"github.com/nameward/nameward/e2e/lab/labclock\"\n"),
			text[clause[1]:], []byte("\nvar _ time.Duration\n"))
		return os.WriteFile(path, text, 0o600)
	})
}

func (e Edit) apply(source string) error {
	path := filepath.Join(source, e.File)
	text, err := os.ReadFile(path) //nolint:gosec // below a directory of the test
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), e.Old) {
		return fmt.Errorf("edit %s: it has no %q", e.File, e.Old)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(text), e.Old, e.New, 1)), 0o600)
}
