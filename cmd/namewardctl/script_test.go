package main

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "rewrite the golden files in testdata")

// TestScripts runs each script of testdata against a fleet of its own. The command
//
//	ctl CODE ARGS...
//
// runs namewardctl in this process and wants that exit code; `input FILE` gives the next run its
// standard input. The clock stands still, so that ages in golden files do.
func TestScripts(t *testing.T) {
	moment := time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)
	type inputKey struct{}
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			// A socket's path has room for about a hundred bytes, less than a test's directory may take.
			directory, err := os.MkdirTemp("", "ctl")
			if err != nil {
				return err
			}
			env.Defer(func() { _ = os.RemoveAll(directory) })
			socket := filepath.Join(directory, "agent.sock")
			f := newFleet(moment)
			f.pageLimit = 2
			env.Setenv("ADDRESS", f.serve(t, socket))
			env.Setenv("SOCKET", socket)
			env.Values[inputKey{}] = new(string)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"input": func(ts *testscript.TestScript, _ bool, args []string) {
				*ts.Value(inputKey{}).(*string) = ts.ReadFile(args[0])
			},
			"ctl": func(ts *testscript.TestScript, _ bool, args []string) {
				want, err := strconv.Atoi(args[0])
				ts.Check(err)
				input := ts.Value(inputKey{}).(*string)
				p := &program{
					stdin: strings.NewReader(*input), stdout: ts.Stdout(), stderr: ts.Stderr(),
					now: func() time.Time { return moment },
					// The scripts share one process, and so its working directory.
					readFile: func(name string) ([]byte, error) { return os.ReadFile(ts.MkAbs(name)) },
					lookupEnv: func(name string) (string, bool) {
						value := ts.Getenv(name)
						return value, value != ""
					},
				}
				*input = ""
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				if got := p.run(ctx, args[1:]); got != want {
					ts.Fatalf("namewardctl exits with %d, want %d", got, want)
				}
			},
		},
	})
}

// TestRunPrintsHelp covers what the scripts leave out: Run with the real clock and environment.
func TestRunPrintsHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"--help"}, strings.NewReader(""), &stdout, &stderr); code != 0 {
		t.Errorf("exit code %d, want 0; standard error: %s", code, &stderr)
	}
	for _, command := range []string{"apply", "get", "describe", "delete", "watch", "explain", "status", "pki", "completion", "version", "diff", "import", "top", "ruleset"} {
		if !strings.Contains(stdout.String(), "\n  "+command+" ") {
			t.Errorf("help does not list %s:\n%s", command, &stdout)
		}
	}
}

// TestWatchFollowsChanges reads the lines of a watch as changes are applied, then interrupts it.
func TestWatchFollowsChanges(t *testing.T) {
	directory, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	address := newFleet(time.Now()).serve(t, filepath.Join(directory, "agent.sock"))
	connect := []string{"--server", address, "--insecure"}

	ctx, interrupt := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	code := make(chan int, 1)
	var watchErrors bytes.Buffer
	go func() {
		code <- Run(ctx, append([]string{"watch", "policies", "-o", "json"}, connect...), strings.NewReader(""), writer, &watchErrors)
		_ = writer.Close()
	}()
	change := func(input string, args ...string) {
		t.Helper()
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), append(args, connect...), strings.NewReader(input), &stdout, &stderr); code != 0 {
			t.Fatalf("%v: exit code %d: %s", args, code, &stderr)
		}
	}
	lines := bufio.NewScanner(reader)
	change(`{"name": "policies/late"}`, "apply", "-f", "-")
	wantLine(t, lines, `{"change":"PUT","name":"policies/late"`)
	change("", "delete", "policies/late")
	wantLine(t, lines, `{"change":"DELETE","name":"policies/late"}`)
	interrupt()
	if got := <-code; got != 0 {
		t.Errorf("exit code %d after an interrupt, want 0; standard error: %s", got, &watchErrors)
	}
}

func wantLine(t *testing.T, lines *bufio.Scanner, part string) {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the watch ended, want a line with %s", part)
	}
	if !strings.Contains(lines.Text(), part) {
		t.Fatalf("got line %s, want one with %s", lines.Text(), part)
	}
}
