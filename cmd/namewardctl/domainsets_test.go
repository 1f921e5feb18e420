package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLargeDomainSet applies a document with more domains than a message may have, and applies what describe
// prints of it.
func TestLargeDomainSet(t *testing.T) {
	directory, err := os.MkdirTemp("", "ctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(directory) })
	f := newFleet(time.Now())
	address := f.serve(t, filepath.Join(directory, "agent.sock"))
	run := func(input string, args ...string) string {
		t.Helper()
		var stdout, stderr bytes.Buffer
		args = append(args, "--server", address, "--insecure")
		if code := Run(t.Context(), args, strings.NewReader(input), &stdout, &stderr); code != 0 {
			t.Fatalf("namewardctl %v: code %d, %s", args, code, &stderr)
		}
		return stdout.String()
	}
	var document strings.Builder
	document.WriteString("name: domainSets/large\ndescription: one\ndomains:\n")
	const count = 25_000
	for i := range count {
		fmt.Fprintf(&document, "- h%05d.example\n", i)
	}
	for _, step := range []struct{ input, want string }{
		{document.String(), "domainSets/large created\n"},
		{document.String(), "domainSets/large unchanged\n"},
		{strings.Replace(document.String(), "description: one", "description: two", 1), "domainSets/large configured\n"},
		{strings.Replace(document.String(), "- h00007.example\n", "", 1), "domainSets/large configured\n"},
	} {
		if got := run(step.input, "apply", "-f", "-"); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
	if set := f.sets["domainSets/large"]; len(set.GetDomains()) != count-1 || set.GetDescription() != "one" {
		t.Errorf("the server has %d domains and the description %q", len(set.GetDomains()), set.GetDescription())
	}
	for _, form := range []string{"json", "yaml"} {
		described := run("", "describe", "domainSets/large", "-o", form)
		if got := strings.Count(described, ".example"); got != count-1 {
			t.Errorf("describe -o %s has %d domains", form, got)
		}
		if got := run(described, "apply", "-f", "-"); got != "domainSets/large unchanged\n" {
			t.Errorf("what describe -o %s prints is applied again: %q", form, got)
		}
	}
	if text := run("", "describe", "domainSets/large"); strings.Count(text, ".example\n") != count-1 {
		t.Errorf("describe shows %d domains", strings.Count(text, ".example\n"))
	}
	if list := run("", "get", "domainsets", "-o", "json"); strings.Contains(list, ".example") || !strings.Contains(list, `"domainCount": 24999`) {
		t.Errorf("the list has %.200s", list)
	}
}
