package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFaults: only what ran whole, on a kernel without complaints, has passed.
func TestFaults(t *testing.T) {
	const whole = "up\nbegin 0\nend 0 0\nbegin 1\nend 1 0\ndown\n"
	for name, test := range map[string]struct {
		status, console string
		edit            func(*result)
		want            string // in the fault; empty for none
	}{
		"whole":           {status: whole, console: "[ 1.0] tsc: Unable to calibrate against PIT\n"},
		"carriage return": {status: strings.ReplaceAll(whole, "\n", "\r\n")},
		"a failed test":   {status: whole, edit: func(r *result) { r.output.failed = []string{"TestX"} }, want: "failed: TestX"},
		"an exit status":  {status: "up\nbegin 0\nend 0 0\nbegin 1\nend 1 2\ndown\n", want: "second: exit status 2"},
		"no test":         {status: whole, edit: func(r *result) { r.output.passed = 0 }, want: "no test passed"},
		"not all jobs":    {status: "up\nbegin 0\nend 0 0\ndown\n", want: "1 of 2 jobs ended"},
		"no boot":         {status: "", want: "did not come up"},
		"an end too soon": {status: "up\n", edit: func(r *result) { r.err = errors.New("stopped") }, want: "stopped"},
		"a complaint":     {status: whole, console: "[ 9.1] BUG: sleeping function called from invalid context\n", want: "the kernel said"},
		"a slow machine":  {status: whole, console: "[ 9.1] watchdog: BUG: soft lockup - CPU#0 stuck for 26s!\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"status": test.status, "console": test.console} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r := newResult([]job{{name: "first", pkg: "."}, {name: "second", pkg: "./bpf"}})
			r.output.passed = 1
			r.readStatus(filepath.Join(dir, "status"))
			r.readConsole(filepath.Join(dir, "console"))
			if test.edit != nil {
				test.edit(r)
			}
			got := strings.Join(r.faults(), "; ")
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			verdict := map[bool]string{true: " passed ", false: " FAILED "}[test.want == ""]
			if l := line(matrix[0], part{name: "nft"}, r); !strings.Contains(l, verdict) {
				t.Errorf("line %q, want%s", l, verdict)
			}
		})
	}
}
