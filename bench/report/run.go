package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Run is what one run of the bench found, and of what.
type Run struct {
	Commit   string    `json:"commit"` // what was measured, see Commit
	Began    time.Time `json:"began"`
	Fast     bool      `json:"fast"`
	Names    string    `json:"names"` // what the names are
	Machine  Machine   `json:"machine"`
	Outcomes []Outcome `json:"outcomes"`
}

// An Outcome is what became of a section: a result, or why there is none.
type Outcome struct {
	Section string        `json:"section"`
	Took    time.Duration `json:"tookNanoseconds"`
	Failure string        `json:"failure,omitempty"`
	Result  Result        `json:"result"`
}

// like says whether two runs measured the same on the same machine. Changes that are in no commit are not the same
// twice.
func (r Run) like(other Run) bool {
	nameless := r.Commit == unknown || strings.HasSuffix(r.Commit, modified)
	return r.Commit == other.Commit && (!nameless || r.Began.Equal(other.Began)) && r.Machine.like(other.Machine)
}

func (r Run) date() string { return r.Began.UTC().Format("2006-01-02 15:04 MST") }

func (r Run) sections() string {
	names := make([]string, len(r.Outcomes))
	for i, outcome := range r.Outcomes {
		names[i] = "`" + outcome.Section + "`"
	}
	return strings.Join(names, ", ")
}

// Check finds what would make a page wrong: rows that say nothing, numbers that are none.
func (r Result) Check() error {
	var errs []error
	if r.Title == "" {
		errs = append(errs, errors.New("the result has no title"))
	}
	for _, b := range r.Budgets {
		if b.Work == "" || b.Promise == "" || b.Measured == "" {
			errs = append(errs, fmt.Errorf("a budget says too little: %+v", b))
		}
	}
	for _, t := range r.Tables {
		if slices.ContainsFunc(t.Rows, func(row []string) bool { return len(row) != len(t.Columns) }) {
			errs = append(errs, fmt.Errorf("table %q has rows that do not fit its columns %q", t.Caption, t.Columns))
		}
	}
	if _, err := json.Marshal(r); err != nil {
		errs = append(errs, fmt.Errorf("the result cannot be kept: %w", err))
	}
	return errors.Join(errs...)
}
