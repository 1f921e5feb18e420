package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSkip: of tests that have a subtest for each backend, at whatever depth, those of the other are left out.
func TestSkip(t *testing.T) {
	if os.Getenv("KERNELS_TEST_SKIP") != "" {
		t.Run("nft", func(t *testing.T) { t.Run("legacy rules", func(*testing.T) {}) })
		t.Run("legacy", func(*testing.T) {})
		t.Run("ipv6", func(t *testing.T) {
			t.Run("nft", func(*testing.T) {})
			t.Run("legacy", func(*testing.T) {})
		})
		return
	}
	for backend, want := range map[string][]string{
		"nft":    {"TestSkip", "TestSkip/ipv6", "TestSkip/ipv6/nft", "TestSkip/nft", "TestSkip/nft/legacy_rules"},
		"legacy": {"TestSkip", "TestSkip/ipv6", "TestSkip/ipv6/legacy", "TestSkip/legacy"},
	} {
		p := backendPart(backend)
		cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^TestSkip$", "-test.skip="+p.skip()) //nolint:gosec // this test
		cmd.Env = append(os.Environ(), "KERNELS_TEST_SKIP=1")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		var ran []string
		for _, m := range regexp.MustCompile(`(?m)^=== RUN +(\S+)`).FindAllStringSubmatch(string(out), -1) {
			ran = append(ran, m[1])
		}
		slices.Sort(ran)
		if diff := cmp.Diff(want, ran); diff != "" {
			t.Errorf("%s (-want +got):\n%s", backend, diff)
		}
	}
}

func TestChoice(t *testing.T) {
	got, err := parts([]string{"legacy"}, false, &choice{pkg: "./e2e", run: "TestX"})
	if err != nil || len(got) != 1 || len(got[0].jobs) != 1 || got[0].backend != "legacy" {
		t.Fatalf("got %+v, %v", got, err)
	}
	want := "job 0 '/nameward/e2e' '/nameward-programs/e2e.test' '-test.v' '-test.timeout=30m' '-test.run=TestX' " +
		"'-test.skip=/^nft$|//^nft$|///^nft$' '-programs=/nameward-programs' '-test.parallel=1'\n"
	if script := got[0].script(); !strings.HasSuffix(script, want) {
		t.Errorf("got %q, want %q at its end", script, want)
	}
	if got, err := parts([]string{"ipfw"}, false, nil); err == nil {
		t.Errorf("an unknown part: got %v, want an error", got)
	}
}

// TestEveryPackageIsInAPart: a package whose tests came later is not left out unseen.
func TestEveryPackageIsInAPart(t *testing.T) {
	all, err := parts(nil, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	listed := packagesOf(all)
	for _, below := range []string{"bpf", "dataplane"} {
		files, err := filepath.Glob("../../" + below + "/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		deeper, err := filepath.Glob("../../" + below + "/*/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		deepest, err := filepath.Glob("../../" + below + "/*/*/*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range slices.Concat(files, deeper, deepest) {
			if pkg := "./" + strings.TrimPrefix(filepath.Dir(file), "../../"); !slices.Contains(listed, pkg) {
				t.Errorf("%s has tests and is in no part", pkg)
			}
		}
	}
}

// TestListedTestsExist: a test that gets another name is not left out unseen.
func TestListedTestsExist(t *testing.T) {
	all, err := parts(nil, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range append(slicePart().jobs, slices.Concat(all[0].jobs, all[1].jobs, all[2].jobs)...) {
		for _, argument := range j.command {
			if names, ok := strings.CutPrefix(argument, "-test.run=^("); ok {
				names, _, _ = strings.Cut(names, ")$")
				for name := range strings.SplitSeq(names, "|") {
					requireTest(t, filepath.Join("../..", j.pkg), name)
				}
			}
		}
	}
}

func requireTest(t *testing.T, dir, name string) {
	t.Helper()
	files, err := filepath.Glob(dir + "/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // of the repository
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "\nfunc "+name+"(t *testing.T)") {
			return
		}
	}
	t.Errorf("no test %s in %s", name, dir)
}
