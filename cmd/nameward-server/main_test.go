package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSettingsAreUsage holds that a fault of the environment or the file is one of usage, and so exits with 2.
func TestSettingsAreUsage(t *testing.T) {
	file := filepath.Join(t.TempDir(), "server.yaml")
	if err := os.WriteFile(file, []byte("data-dirs: /x\nmax-mappings: many\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NAMEWARD_INSECURE", "perhaps")
	root := command()
	root.SetArgs([]string{"--config", file})
	err := root.ExecuteContext(t.Context())
	if _, usage := errors.AsType[usageError](err); !usage {
		t.Fatalf("got %v, want a usage error", err)
	}
	for _, want := range []string{`NAMEWARD_INSECURE: "perhaps"`, file + ": data-dirs: unknown key", file + `: max-mappings: "many"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}
