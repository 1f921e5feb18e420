package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// resultsFile is what a page is made of, in the folder of its plots.
const resultsFile = "results.json"

// folderOf is where a page's results and plots are: beside it, under its name without .md.
func folderOf(file string) string { return strings.TrimSuffix(file, filepath.Ext(file)) }

// Load reads what was found before, of all sections that there are. A page that is not there is an empty one.
func Load(file string, sections []Section) (Page, error) {
	page := Page{Sections: sections}
	kept := filepath.Join(folderOf(file), resultsFile)
	content, err := os.ReadFile(kept) //nolint:gosec // the page that was asked for
	if errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat(file); err == nil {
			return page, fmt.Errorf("%s is not beside the page %s: measure all sections for it, or some for another page", kept, file)
		}
		return page, nil
	}
	if err != nil {
		return page, fmt.Errorf("read results: %w", err)
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&page.Runs); err != nil {
		return page, fmt.Errorf("read results: %s: %w", kept, err)
	}
	for _, run := range page.Runs {
		for _, outcome := range run.Outcomes {
			if !slices.ContainsFunc(sections, func(s Section) bool { return s.Name == outcome.Section }) {
				return page, fmt.Errorf("%s has results of the section %q, which there is no more: measure all sections for this page", kept, outcome.Section)
			}
		}
	}
	return page, nil
}

// Fits says whether a run's results can stand on the page beside those of others.
func (p Page) Fits(fast bool) error {
	if slices.ContainsFunc(p.Runs, func(r Run) bool { return r.Fast != fast }) {
		return errors.New("results of a fast run and of a thorough one do not go on one page")
	}
	return nil
}

// Take has what a run found take the place of what was found of the same sections before.
func (p *Page) Take(run Run) {
	var runs []Run
	for _, before := range p.Runs {
		before.Outcomes = slices.DeleteFunc(slices.Clone(before.Outcomes), func(o Outcome) bool { return run.has(o.Section) })
		if len(before.Outcomes) > 0 {
			runs = append(runs, before)
		}
	}
	if len(run.Outcomes) > 0 {
		runs = append(runs, run)
	}
	slices.SortStableFunc(runs, func(a, b Run) int { return a.Began.Compare(b.Began) })
	p.Runs = runs
}

func (r Run) has(section string) bool {
	return slices.ContainsFunc(r.Outcomes, func(o Outcome) bool { return o.Section == section })
}

// Save writes the page's results, then what is made of them: the plots, and the page.
func (p Page) Save(file string) error {
	folder := folderOf(file)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("make folder of the page: %w", err)
	}
	err := save(filepath.Join(folder, resultsFile), func(w io.Writer) error {
		encoder := json.NewEncoder(w)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", " ")
		return encoder.Encode(p.Runs)
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, run := range p.Runs {
		for _, outcome := range run.Outcomes {
			for _, plot := range outcome.Result.Plots {
				errs = append(errs, save(filepath.Join(folder, plot.File), plot.WriteSVG))
			}
		}
	}
	errs = append(errs, save(file, func(w io.Writer) error { return p.Write(w, filepath.Base(folder)) }))
	return errors.Join(errs...)
}

// save writes a file anew, or leaves it as it was.
func save(file string, write func(io.Writer) error) error {
	var content bytes.Buffer
	if err := write(&content); err != nil {
		return fmt.Errorf("make %s: %w", file, err)
	}
	if err := os.WriteFile(file+".new", content.Bytes(), 0o644); err != nil { //nolint:gosec // for everybody to read
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}
