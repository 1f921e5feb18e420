package report

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

var threeSections = []Section{{Name: "a"}, {Name: "b"}, {Name: "c"}}

// saved is a page that runs were added to one after the other, each to what is in the file.
func saved(t *testing.T, file string, runs ...Run) Page {
	t.Helper()
	for _, r := range runs {
		page, err := Load(file, threeSections)
		if err != nil {
			t.Fatal(err)
		}
		page.Take(r)
		if err := page.Save(file); err != nil {
			t.Fatal(err)
		}
	}
	page, err := Load(file, threeSections)
	if err != nil {
		t.Fatal(err)
	}
	return page
}

func TestWhatIsLoadedIsWhatWasSaved(t *testing.T) {
	file := filepath.Join(t.TempDir(), "docs", "benchmarks.md")
	page := samplePage()
	if err := page.Save(file); err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(file, page.Sections)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(loaded.Runs, page.Runs) {
		t.Errorf("got %+v, want %+v", loaded.Runs, page.Runs)
	}
	plot := filepath.Join(filepath.Dir(file), "benchmarks", "sets.svg")
	for _, made := range []string{file, plot} {
		before, err := os.ReadFile(made)
		if err != nil || len(before) == 0 {
			t.Fatalf("%s: %v", made, err)
		}
		if err := os.Remove(made); err != nil {
			t.Fatal(err)
		}
		if err := loaded.Save(file); err != nil {
			t.Fatal(err)
		}
		if after, err := os.ReadFile(made); err != nil || string(after) != string(before) {
			t.Errorf("%s is another when it is made of its results: %v\n%s", made, err, after)
		}
	}
}

func TestARunTakesThePlaceOfItsSectionsAlone(t *testing.T) {
	page := saved(t, filepath.Join(t.TempDir(), "page.md"), run("old", 0, "a", "b", "c"), run("new", 1, "b"))
	text := text(t, page)
	contains(t, text,
		"The newest are of `new` (2026-11-26 15:01 UTC)", "- `old` (2026-11-26 15:00 UTC): `a`, `c`\n",
		"| [work of a](#a) | 0 | old | yes | – | – | old |\n| [work of b](#b) | 0 | new | yes | – | – | new |\n",
		"## Of a\n\n**These figures are of `old` (2026-11-26 15:00 UTC), not of the newest on this page, `new`.**", "## Of b\n\n*Section",
		"| what | 2026-11-26 15:00 UTC | 2026-11-26 15:01 UTC |\n", "| Nameward | old | new |\n", "| sections | `a`, `c` | `b` |\n",
	)
	if strings.Count(text, "work of b") != 1 {
		t.Errorf("the section is there twice:\n%s", text)
	}
}

func TestRunsOfOneCommitAreOnePage(t *testing.T) {
	page := saved(t, filepath.Join(t.TempDir(), "page.md"), run("one", 0, "a", "b"), run("one", 1, "c"))
	if text := text(t, page); strings.Contains(text, "of one commit") || strings.Contains(text, "not of the newest") || strings.Contains(text, "| commit |") {
		t.Errorf("nothing is to be told apart:\n%s", text)
	}
}

func TestWhatIsNotTheSameIsTold(t *testing.T) {
	elsewhere := run("one", 0, "a")
	elsewhere.Machine.Kernel = "6.1.0"
	for fact, runs := range map[string][2]Run{
		"changes that are in no commit are not the same twice": {run("one-dirty", 0, "a"), run("one-dirty", 1, "b")},
		"nor is what no commit is known of":                    {run(unknown, 0, "a"), run(unknown, 1, "b")},
		"nor another kernel":                                   {elsewhere, run("one", 1, "b")},
	} {
		t.Run(fact, func(t *testing.T) {
			page := saved(t, filepath.Join(t.TempDir(), "page.md"), runs[0], runs[1])
			contains(t, text(t, page), "**Not all figures here are of one commit on one machine.**", "not of the newest on this page")
		})
	}
}

func TestARunWithoutSectionsLeftIsGone(t *testing.T) {
	page := saved(t, filepath.Join(t.TempDir(), "page.md"), run("old", 0, "a"), run("new", 1, "a", "b"))
	if len(page.Runs) != 1 || page.Runs[0].Commit != "new" {
		t.Errorf("runs: %+v", page.Runs)
	}
}

func TestPagesThatCannotBeAddedTo(t *testing.T) {
	for _, test := range []struct {
		fact, results, want string
	}{
		{"no results", "", "is not beside the page"},
		{"a section that there is no more", `[{"outcomes": [{"section": "gone"}]}]`, `the section "gone"`},
		{"what this program does not know", `[{"outcomes": [{"section": "a", "colour": 3}]}]`, `unknown field "colour"`},
		{"half a file", `[{"outcomes": [`, "unexpected EOF"},
	} {
		t.Run(test.fact, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "page.md")
			if err := os.WriteFile(file, []byte("# By hand\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			if test.results != "" {
				if err := os.Mkdir(folderOf(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(folderOf(file), resultsFile), []byte(test.results), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Load(file, threeSections); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error: %v, want %q", err, test.want)
			}
		})
	}
}

func TestAFastRunDoesNotFitAThoroughOne(t *testing.T) {
	page := Page{Runs: []Run{run("one", 0, "a")}}
	if page.Fits(false) != nil || page.Fits(true) == nil {
		t.Errorf("thorough: %v, fast: %v", page.Fits(false), page.Fits(true))
	}
}

func TestResultsAreChecked(t *testing.T) {
	good := samplePage().Runs[0].Outcomes[1].Result
	if err := good.Check(); err != nil {
		t.Errorf("the sample: %v", err)
	}
	for want, result := range map[string]Result{
		"no title":        {},
		"says too little": {Title: "t", Budgets: []Budget{{Work: "w", Promise: "p"}}},
		"do not fit":      {Title: "t", Tables: []Table{{Columns: []string{"a"}, Rows: [][]string{{"1", "2"}}}}},
		"cannot be kept":  {Title: "t", Plots: []Plot{{Lines: []Line{{Points: []Point{{Y: math.Inf(1)}}}}}}},
	} {
		if err := result.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}
