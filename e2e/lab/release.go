package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// An Edit makes another release: text of a file of this one, and what that has in its place.
type Edit struct{ File, Old, New string }

// BuildAgent builds the agent of another release, from the sources of this one with edits, below a directory,
// and returns its path. The programs for the kernel are compiled anew.
func BuildAgent(ctx context.Context, dir string, edits ...Edit) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the sources: %w", err)
	}
	source := filepath.Join(dir, "source")
	for _, part := range []string{"go.mod", "go.sum", "api", "bpf", "cmd", "dataplane"} {
		from := filepath.Join(strings.TrimSpace(string(root)), part)
		if err := os.MkdirAll(source, 0o700); err != nil {
			return "", err
		}
		if out, err := exec.CommandContext(ctx, "cp", "-r", from, source).CombinedOutput(); err != nil {
			return "", fmt.Errorf("copy the sources: %w: %s", err, out)
		}
	}
	for _, edit := range edits {
		if err := edit.apply(source); err != nil {
			return "", err
		}
	}
	agent := filepath.Join(dir, "nameward-agent")
	for _, args := range [][]string{{"generate", "./bpf/generate.go"}, {"build", "-o", agent, "./cmd/nameward-agent"}} {
		cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // as above
		cmd.Dir = source
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %w\n%s", args[0], err, out)
		}
	}
	return agent, nil
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
