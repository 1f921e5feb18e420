package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestOutput(t *testing.T) {
	const text = `=== RUN   TestOne
=== RUN   TestOne/nft
=== PAUSE TestOne/nft
=== RUN   TestTwo
    two_test.go:12: this needs /dev/net/tun
--- SKIP: TestTwo (0.00s)
=== CONT  TestOne/nft
    one_test.go:7: got 1, want 2
--- FAIL: TestOne (0.00s)
    --- FAIL: TestOne/nft (1.25s)
    --- PASS: TestOne/legacy (1.25s)
WARNING  nf_tables match  there is none of that name
ok       program load     7 programs
time=2026-11-26T17:55:07.547Z level=WARN msg="--- FAIL: nothing (0s)"
FAIL
`
	var o output
	for line := range strings.Lines(text) {
		o.read(strings.TrimSuffix(line, "\n"))
	}
	want := output{
		failed: []string{"TestOne", "TestOne/nft"}, skipped: []string{"TestTwo: this needs /dev/net/tun"}, passed: 1,
		lacks: []string{"WARNING  nf_tables match  there is none of that name"},
		said:  o.said, test: o.test,
	}
	if diff := cmp.Diff(want, o, cmp.AllowUnexported(output{})); diff != "" {
		t.Errorf("output (-want +got):\n%s", diff)
	}
}
