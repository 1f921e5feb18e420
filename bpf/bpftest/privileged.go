// Package bpftest loads the datapath unpinned, fills its tables by hand and builds the packets that
// its programs judge, for tests that run them with BPF_PROG_TEST_RUN.
package bpftest

import (
	"os"
	"testing"
)

// RequirePrivileged skips a test that needs root, or fails it where REQUIRE_PRIVILEGED=1 promises root:
// a skip must not pass for a success there.
func RequirePrivileged(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("REQUIRE_PRIVILEGED") == "1" {
		t.Fatal("REQUIRE_PRIVILEGED=1, but the test does not run as root")
	}
	t.Skip("needs root: run make test-privileged")
}
