package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nameward/nameward/bench/report"
)

func section(name string, err error) report.Section {
	return report.Section{Name: name, Measure: func(context.Context, report.Config) (report.Result, error) {
		return report.Result{Title: "Of " + name}, err
	}}
}

func TestAFailedSectionIsToldAndTheOthersRun(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	var out bytes.Buffer
	all := []report.Section{section("first", errors.New("broken")), section("second", nil)}
	err := command(t.Context(), []string{"-fast", "-out", page, "-names", nameFile(t)}, all, &out, io.Discard)
	if !errors.Is(err, errFailed) {
		t.Errorf("error: %v", err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## first: failed\n\n```\nbroken", "## Of second", "1 real ones, of a file, and 149,999 made alike"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %q in the page:\n%s", want, text)
		}
	}
	if printed := out.String(); !strings.Contains(printed, "first failed after 0s: broken") || !strings.Contains(printed, "Of second") {
		t.Errorf("printed:\n%s", printed)
	}
}

func TestAPartialRunLeavesThePageAlone(t *testing.T) {
	t.Chdir(t.TempDir())
	all := []report.Section{section("first", nil), section("second", nil)}
	var out bytes.Buffer
	if err := command(t.Context(), []string{"-fast", "-only", "second", "-names", nameFile(t)}, all, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "Of first") || !strings.Contains(out.String(), "Of second") {
		t.Errorf("printed:\n%s", out.String())
	}
	if made, err := os.ReadDir("."); err != nil || len(made) > 0 {
		t.Errorf("written: %v, %v", made, err)
	}
}

func TestAnInterruptedRunWritesNoPage(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	page := filepath.Join(t.TempDir(), "page.md")
	cleanedUp := false
	all := []report.Section{
		{Name: "first", Measure: func(ctx context.Context, _ report.Config) (report.Result, error) {
			cancel()
			<-ctx.Done()
			cleanedUp = true
			return report.Result{}, ctx.Err()
		}},
		section("second", nil),
	}
	var out bytes.Buffer
	err := command(ctx, []string{"-fast", "-out", page, "-names", nameFile(t)}, all, &out, io.Discard)
	if !errors.Is(err, context.Canceled) || !cleanedUp || out.Len() > 0 {
		t.Errorf("error %v, cleaned up: %v, printed %q", err, cleanedUp, out.String())
	}
	if _, err := os.Stat(page); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the page: %v", err)
	}
}

func TestBadCommandLines(t *testing.T) {
	all := []report.Section{section("first", nil)}
	for want, args := range map[string][]string{
		`no section "second"`: {"-only", "first,second"},
		`what is "first"?`:    {"first"},
		"no such file":        {"-names", "/nonexistent"},
	} {
		if err := command(t.Context(), args, all, io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", args, err, want)
		}
	}
}

func TestList(t *testing.T) {
	var out bytes.Buffer
	if err := command(t.Context(), []string{"-list"}, []report.Section{section("first", nil), section("second", nil)}, &out, io.Discard); err != nil {
		t.Fatal(err)
	}
	if out.String() != "first\nsecond\n" {
		t.Errorf("list: %q", out.String())
	}
	for _, s := range sections() {
		if s.Name == "" || s.Measure == nil {
			t.Errorf("section %q has no name or nothing to measure", s.Name)
		}
	}
}

func nameFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "names.txt")
	if err := os.WriteFile(file, []byte("example.com\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
