package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A result is what became of a part on a kernel.
type result struct {
	jobs   []job
	output output
	exits  map[int]int // exit status of each job that ended
	began  int         // the number of the last that began; -1 before the first
	up     bool        // the guest's first process ran
	down   bool        // and had run all jobs
	took   time.Duration
	cpu    time.Duration // which tells more where the machine has other work
	notes  []string      // faults of the machine or its kernel
	err    error         // the part was not run whole
}

func newResult(jobs []job) *result { return &result{jobs: jobs, exits: map[int]int{}, began: -1} }

// readStatus reads what the guest's first process told.
func (r *result) readStatus(path string) {
	text, err := os.ReadFile(path) //nolint:gosec // of the guest
	if err != nil {
		return // qemu did not start, and has said so
	}
	for line := range strings.Lines(string(text)) {
		var number, status int
		switch line = strings.TrimSpace(line); {
		case line == "up":
			r.up = true
		case line == "down":
			r.down = true
		case scan(line, "begin %d", &number):
			r.began = number
		case scan(line, "end %d %d", &number, &status):
			r.exits[number] = status
		}
	}
}

func scan(line, form string, into ...any) bool {
	n, err := fmt.Sscanf(line, form, into...)
	return err == nil && n == len(into)
}

// complaint is a line by which a kernel says that something in it is wrong. That the machine is slow is no
// fault of anybody's.
var complaint = regexp.MustCompile(`BUG: |WARNING: |Oops|general protection fault|Kernel panic|possible circular locking`)

func (r *result) readConsole(path string) {
	text, err := os.ReadFile(path) //nolint:gosec // of the guest
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		if complaint.MatchString(line) && !strings.Contains(line, "soft lockup") {
			r.notes = append(r.notes, "the kernel said: "+strings.TrimSpace(line))
		}
	}
	r.notes = slices.Compact(r.notes)
}

// current names the job that the guest was at.
func (r *result) current() string {
	if r.began < 0 || r.began >= len(r.jobs) {
		return "its boot"
	}
	if r.output.test != "" {
		return r.jobs[r.began].name + ", " + r.output.test
	}
	return r.jobs[r.began].name
}

// faults are the reasons for which the part did not pass.
func (r *result) faults() []string {
	var faults []string
	if r.err != nil {
		faults = append(faults, r.err.Error())
	} else if !r.down {
		faults = append(faults, "the machine did not come up")
	}
	for _, test := range r.output.failed {
		faults = append(faults, "failed: "+test)
	}
	for i, j := range r.jobs {
		if status, ended := r.exits[i]; ended && status != 0 {
			faults = append(faults, fmt.Sprintf("%s: exit status %d", j.name, status))
		}
	}
	if r.err == nil && r.down && len(r.exits) < len(r.jobs) {
		faults = append(faults, fmt.Sprintf("%d of %d jobs ended", len(r.exits), len(r.jobs)))
	}
	isTest := func(j job) bool { return j.pkg != "." }
	if r.down && r.output.passed == 0 && slices.ContainsFunc(r.jobs, isTest) {
		faults = append(faults, "no test passed")
	}
	return append(faults, r.notes...)
}

// line is the one in which a combination ends.
func line(k kernel, p part, r *result) string {
	verdict := "passed"
	if len(r.faults()) > 0 {
		verdict = "FAILED"
	}
	return fmt.Sprintf("%-11s  %-8s  %s  %4.0f s  (%.0f s of CPU, %d tests)",
		k, p.name, verdict, r.took.Seconds(), r.cpu.Seconds(), r.output.passed)
}
