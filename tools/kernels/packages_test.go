package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestAnySourceAnswered: a machine without a network is told from one whose sources have no such kernel.
func TestAnySourceAnswered(t *testing.T) {
	for output, want := range map[string]bool{
		"Hit:1 http://deb.example bookworm InRelease\nReading package lists...\n":                          true,
		"Err:1 http://other.example x InRelease\nGet:2 http://deb.example bookworm InRelease [55 kB]\n":    true,
		"Ign:1 http://deb.example bookworm InRelease\nErr:1 http://deb.example bookworm InRelease\n  Temp": false,
		"": false,
	} {
		if got := anySourceAnswered(output); got != want {
			t.Errorf("got %v, want %v after\n%s", got, want, output)
		}
	}
}

// TestCached: the package that was downloaded last is taken, of that kernel alone and whole.
func TestCached(t *testing.T) {
	cache := t.TempDir()
	if got := cached(cache, kernel{"6.1", ""}); got != "" {
		t.Errorf("got %s out of an empty cache", got)
	}
	began := time.Now()
	for i, name := range []string{
		"linux-image-6.1.0-54-amd64_6.1.170-1_amd64.deb", "linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb",
		"linux-image-6.1.0-56-rt-amd64_6.1.192-2_amd64.deb", "linux-image-6.1.0-56-amd64_6.1.192-2_amd64.0a1b",
	} {
		path, at := filepath.Join(cache, name), began.Add(time.Duration(i)*time.Second)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	want := filepath.Join(cache, "linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb")
	if got := cached(cache, kernel{"6.1", ""}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
