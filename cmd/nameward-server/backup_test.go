package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func run(t *testing.T, args ...string) error {
	t.Helper()
	root := command()
	root.SetArgs(args)
	return root.ExecuteContext(t.Context())
}

func TestBackupCommands(t *testing.T) {
	for _, args := range [][]string{{"backup"}, {"restore"}, {"backup", "a", "b"}, {"restore", "--data-directory", "x", "a"}} {
		if _, usage := errors.AsType[usageError](run(t, args...)); !usage {
			t.Errorf("%v: no usage error", args)
		}
	}
	empty, file := t.TempDir(), filepath.Join(t.TempDir(), "backup")
	t.Setenv("NAMEWARD_DATA_DIR", empty)
	if err := run(t, "backup", file); err == nil || !strings.Contains(err.Error(), empty+": holds no store") {
		t.Errorf("of an empty directory: %v", err)
	}
	if left, err := os.ReadDir(filepath.Dir(file)); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	if err := os.WriteFile(file, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t, "restore", file); err == nil || !strings.Contains(err.Error(), "is no backup") {
		t.Errorf("of another file: %v", err)
	}
}
