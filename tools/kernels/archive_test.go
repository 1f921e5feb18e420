package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "five")
	if err := os.WriteFile(source, []byte("12345"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	first, second := filepath.Join(dir, "1.cpio"), filepath.Join(dir, "2.cpio")
	writeArchive(t, first, func(a *archive) []error {
		return []error{
			a.text("etc/deep/hosts", "one\n", 0o644), a.copy("bin/five", source), a.link("bin/link", "five"),
			a.copy("bin/link", source), // the first stays
			a.dir("etc/deep"), a.dir("empty"),
		}
	})
	writeArchive(t, second, func(a *archive) []error { return []error{a.text("init", "", 0o755)} })
	both := filepath.Join(dir, "both")
	if err := concatenate(both, first, second); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"40755 etc ", "40755 etc/deep ", "100644 etc/deep/hosts one\n", "40755 bin ", "100755 bin/five 12345",
		"120777 bin/link five", "40755 empty ", "0 TRAILER!!! ", "100755 init ", "0 TRAILER!!! ",
	}
	if diff := cmp.Diff(want, entries(t, both)); diff != "" {
		t.Errorf("entries (-want +got):\n%s", diff)
	}
}

func writeArchive(t *testing.T, file string, fill func(*archive) []error) {
	t.Helper()
	a, err := newArchive(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range append(fill(a), a.close()) {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// entries reads an archive as the kernel does: mode, name and content.
func entries(t *testing.T, file string) (all []string) {
	t.Helper()
	text, err := os.ReadFile(file) //nolint:gosec // of the test
	if err != nil {
		t.Fatal(err)
	}
	number := func(at int) int {
		n, err := strconv.ParseUint(string(text[at:at+8]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		return int(n)
	}
	aligned := func(at int) int { return (at + 3) &^ 3 }
	for at := 0; at < len(text); {
		if string(text[at:at+6]) != "070701" {
			t.Fatalf("at %d there is no header", at)
		}
		mode, size, nameBytes := number(at+14), number(at+54), number(at+94)
		name := strings.TrimSuffix(string(text[at+110:at+110+nameBytes]), "\x00")
		content := aligned(at + 110 + nameBytes)
		all = append(all, strconv.FormatInt(int64(mode), 8)+" "+name+" "+string(text[content:content+size]))
		at = aligned(content + size)
	}
	return all
}
