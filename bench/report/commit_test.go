package report

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommit(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("GIT_CEILING_DIRECTORIES", filepath.Dir(dir))
	t.Chdir(dir)
	if got := Commit(t.Context()); got != unknown {
		t.Errorf("outside of a repository: %s", got)
	}
	git := func(args ...string) {
		t.Helper()
		args = append([]string{"-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false"}, args...)
		if out, err := exec.CommandContext(t.Context(), "git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	write := func(file, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	commit := func(file, content string) {
		t.Helper()
		write(file, content)
		git("add", file)
		git("commit", "-q", "-m", content)
	}
	git("init", "-q", ".")
	commit("bench/main.go", "one")
	first := Commit(t.Context())
	if first == unknown || strings.HasSuffix(first, modified) {
		t.Fatalf("first commit: %s", first)
	}
	commit("docs/benchmarks.md", "page")
	commit("README.md", "words")
	write("docs/benchmarks/results.json", "more of the page")
	if got := Commit(t.Context()); got != first {
		t.Errorf("documentation changes nothing that is measured: %s, want %s", got, first)
	}
	write("bench/untold.go", "two")
	if got := Commit(t.Context()); got != first+modified || Clean(got) != first {
		t.Errorf("with a file that is in no commit: %s, want %s", got, first+modified)
	}
	commit("bench/untold.go", "three")
	second := Commit(t.Context())
	if second == first || Clean(second) != second {
		t.Errorf("second commit: %s, the first: %s", second, first)
	}
	t.Chdir("bench")
	if got := Commit(t.Context()); got != second {
		t.Errorf("from a folder: %s, want %s", got, second)
	}
}
