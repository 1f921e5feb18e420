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

func TestAPartialRunReplacesItsSectionsOnAPage(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	title := "Of the first run"
	measured := func(name string) report.Section {
		return report.Section{Name: name, Measure: func(context.Context, report.Config) (report.Result, error) {
			return report.Result{Title: title + ", " + name}, nil
		}}
	}
	all := []report.Section{measured("first"), measured("second")}
	bench := func(args ...string) error {
		return command(t.Context(), append(args, "-out", page, "-names", nameFile(t)), all, io.Discard, io.Discard)
	}
	if err := bench("-fast"); err != nil {
		t.Fatal(err)
	}
	title = "Of the second run"
	if err := bench("-fast", "-only", "second,second"); err != nil {
		t.Fatal(err)
	}
	expect := func(titles ...string) {
		t.Helper()
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if count := strings.Count(string(text), "## Of the "); count != len(titles) {
			t.Errorf("%d sections on the page:\n%s", count, text)
		}
		for _, title := range titles {
			if !strings.Contains(string(text), "## "+title+"\n") {
				t.Errorf("no %q on the page:\n%s", title, text)
			}
		}
	}
	expect("Of the first run, first", "Of the second run, second")
	measured = func(name string) report.Section {
		return report.Section{Name: name, Measure: func(context.Context, report.Config) (report.Result, error) {
			t.Errorf("%s is measured, though the page cannot take it", name)
			return report.Result{}, nil
		}}
	}
	kept := all
	all = []report.Section{measured("first"), measured("second")}
	if err := bench("-only", "first"); err == nil || !strings.Contains(err.Error(), "do not go on one page") {
		t.Errorf("a thorough run on the page of a fast one: %v", err)
	}
	all = all[:1]
	if err := bench("-fast", "-only", "first"); err == nil || !strings.Contains(err.Error(), `section "second"`) {
		t.Errorf("a page with a section that there is no more: %v", err)
	}
	expect("Of the first run, first", "Of the second run, second")
	if err := os.WriteFile(page, []byte("written by hand"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := command(t.Context(), []string{"-render", "-out", page}, kept, io.Discard, io.Discard); err != nil {
		t.Fatal(err)
	}
	expect("Of the first run, first", "Of the second run, second")
	title = "Of the third run"
	all = kept
	if err := bench("-fast"); err != nil {
		t.Fatal(err)
	}
	expect("Of the third run, first", "Of the third run, second")
}

// What is built of another commit than the one that it would write on the page says so before it measures.
func TestAProgramOfAnotherCommitWritesNoPage(t *testing.T) {
	builtOf = "another"
	defer func() { builtOf = "" }()
	page := filepath.Join(t.TempDir(), "page.md")
	err := command(t.Context(), []string{"-fast", "-out", page}, []report.Section{section("first", nil)}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "built of another") {
		t.Errorf("error: %v", err)
	}
}

// Nobody writes on the page but the bench.
func TestThePageIsOfItsResults(t *testing.T) {
	kept := "../docs/benchmarks"
	page, err := report.Load(kept+".md", sections())
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "benchmarks")
	if err := page.Save(again + ".md"); err != nil {
		t.Fatal(err)
	}
	made, err := filepath.Glob(again + "/*")
	if err != nil || len(made) < 2 {
		t.Fatalf("made: %v, %v", made, err)
	}
	for _, file := range append(made, again+".md") {
		name, _ := filepath.Rel(again, file)
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(kept, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the results say (bin/bench -render): %v", filepath.Join(kept, name), err)
		}
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
		`no section "second"`:  {"-only", "first,second"},
		`what is "first"?`:     {"first"},
		"no such file":         {"-names", "/nonexistent"},
		"nothing is measured":  {"-render", "-only", "first"},
		"there are no results": {"-render", "-out", filepath.Join(t.TempDir(), "page.md")},
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
