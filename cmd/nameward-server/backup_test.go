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
	for _, args := range [][]string{
		{"backup"},
		{"restore"},
		{"backup", "a", "b"},
		{"restore", "--data-directory", "x", "a"},
		{"backup", "--config", "/nonexistent", "a"},
		{"migrate"},
		{"migrate", "--from", "bolt:a", "--to", "bolt:b", "extra"},
		{"migrate", "--from", "paper:a", "--to", "bolt:b"},
		{"migrate", "--from", "bolt:a", "--to", "etcd:nowhere/nameward/"},
		{"backups", "a"},
	} {
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
	// The file of the server says it too, beside what is the server's alone.
	settings := filepath.Join(t.TempDir(), "server.yaml")
	if err := os.WriteFile(settings, []byte("listen: 192.0.2.1:7443\ndata-dir: "+empty+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NAMEWARD_DATA_DIR", "")
	if err := run(t, "backup", "--config", settings, file); err == nil || !strings.Contains(err.Error(), empty+": holds no store") {
		t.Errorf("of the directory that the file names: %v", err)
	}
	t.Setenv("NAMEWARD_DATA_DIR", empty)
	if err := os.WriteFile(file, []byte("something else"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t, "restore", file); err == nil || !strings.Contains(err.Error(), "is no backup") {
		t.Errorf("of another file: %v", err)
	}
}
