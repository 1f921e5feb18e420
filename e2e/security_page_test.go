package e2e_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// A package in backquotes, and the tests behind it up to the next one.
	packageOnPage = regexp.MustCompile("`((?:e2e|api|bpf|controlplane|dataplane|cmd)[a-z/0-9]*)`([^`|]*)")
	testOnPage    = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z]\w*`)
)

// The page of the threat model claims nothing by a test that there is not.
func TestSecurityPageNamesTestsThatExist(t *testing.T) {
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	named := 0
	for _, match := range packageOnPage.FindAllStringSubmatch(string(page), -1) {
		for _, test := range testOnPage.FindAllString(match[2], -1) {
			named++
			if !hasTest(t, match[1], test) {
				t.Errorf("%s has no %s", match[1], test)
			}
		}
	}
	if all := len(testOnPage.FindAllString(string(page), -1)); named != all || named < 50 {
		t.Errorf("%d of %d tests on the page are behind the name of a package", named, all)
	}
}

func hasTest(t *testing.T, in, test string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", in, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(text), "func "+test+"(") {
			return true
		}
	}
	return false
}
