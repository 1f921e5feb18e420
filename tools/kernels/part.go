package main

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// A part is what one guest runs.
type part struct {
	name    string
	backend string // what `iptables` is in the guest
	jobs    []job
}

// A job is a command in the guest.
type job struct {
	name    string
	pkg     string // whose tests it runs, in its directory; the repository for a job that runs none
	command []string
}

// packages whose tests need no iptables, or none of a backend: they run once on a kernel.
var programPackages = []string{
	"./bpf", "./dataplane/conntrack", "./dataplane/datapath", "./dataplane/enforce", "./dataplane/enforce/enforcetest",
	"./dataplane/localserver", "./dataplane/lower", "./dataplane/observe", "./dataplane/preflight", "./dataplane/report",
	"./dataplane/subscribe",
}

// packages whose tests run on each backend.
var backendPackages = []string{"./dataplane/netfilter", "./dataplane"}

// leftOut are tests that are long and of what is the same under every kernel.
var leftOut = map[string]string{"./dataplane/netfilter": "^TestEnsureMends$"}

const endToEnd = "./e2e"

// shorter is what tests do less of than they would: a guest is some twenty times as slow.
var shorter = map[string][]string{
	"./bpf":                {"-executions=6000"},
	"./dataplane/datapath": {"-rapid.checks=10"},
	endToEnd:               {"-programs=/" + guestPrograms, "-test.parallel=1"},
}

// parts gives those with the names. A slice is short enough for every change; only replaces what they run.
func parts(names []string, slice bool, only *choice) ([]part, error) {
	all := []part{programsPart(), backendPart("nft"), backendPart("legacy")}
	if slice {
		all = []part{slicePart()}
	}
	var chosen []part
	for _, p := range all {
		if len(names) == 0 || slices.Contains(names, p.name) {
			chosen = append(chosen, p)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(all, func(p part) bool { return p.name == name }) {
			return nil, fmt.Errorf("part %q: there are %s", name, partNames(all))
		}
	}
	if only != nil {
		for i := range chosen {
			chosen[i].jobs = []job{only.job(chosen[i])}
		}
	}
	return chosen, nil
}

// A choice is what is run in place of all: tests of a package, or a command for the shell.
type choice struct{ pkg, run, command string }

func (c choice) job(p part) job {
	if c.command != "" {
		return job{"command", ".", []string{"bash", "-c", c.command}}
	}
	return testJob(c.pkg, c.run, p.skip())
}

func partNames(all []part) string {
	var names []string
	for _, p := range all {
		names = append(names, p.name)
	}
	return strings.Join(names, ", ")
}

func programsPart() part {
	p := part{name: "programs", backend: "nft"}
	for _, pkg := range programPackages {
		p.jobs = append(p.jobs, testJob(pkg, "", ""))
	}
	return p
}

func backendPart(backend string) part {
	p := part{name: backend, backend: backend}
	p.jobs = append(p.jobs, checkJob(backend))
	for _, pkg := range backendPackages {
		skip := p.skip()
		if left, ok := leftOut[pkg]; ok {
			skip += "|" + left
		}
		p.jobs = append(p.jobs, testJob(pkg, "", skip))
	}
	tests := bothBackends
	if backend == "nft" {
		tests = slices.Concat(bothBackends, anyBackend)
	}
	p.jobs = append(p.jobs, testJob(endToEnd, oneOf(tests), p.skip()))
	return p
}

// skip is the pattern of the subtests that are of the other backend.
func (p part) skip() string {
	other := map[string]string{"nft": "^legacy$", "legacy": "^nft$"}[p.backend]
	if p.name != p.backend {
		return ""
	}
	return "/" + other + "|//" + other + "|///" + other
}

func oneOf(tests []string) string { return "^(" + strings.Join(tests, "|") + ")$" }

// checkJob has the agent say what the kernel lacks.
func checkJob(backend string) job {
	return job{"check", ".", []string{
		"/" + guestPrograms + "/nameward-agent", "check", "--iptables", backend, "--trusted-resolver", "127.0.0.1",
		"--state-dir", "/tmp/state", "--insecure", "--server", "127.0.0.1:1",
	}}
}

func testJob(pkg, run, skip string) job {
	args := []string{"/" + guestPrograms + "/" + testOf(pkg), "-test.v", "-test.timeout=30m"}
	if run != "" {
		args = append(args, "-test.run="+run)
	}
	if skip != "" {
		args = append(args, "-test.skip="+skip)
	}
	return job{strings.TrimPrefix(pkg, "./"), pkg, append(args, shorter[pkg]...)}
}

// packagesOf gives the packages whose tests the parts run.
func packagesOf(parts []part) []string {
	var packages []string
	for _, p := range parts {
		for _, j := range p.jobs {
			if j.pkg != "." && !slices.Contains(packages, j.pkg) {
				packages = append(packages, j.pkg)
			}
		}
	}
	return packages
}

// script is what the guest's first process runs.
func (p part) script() string {
	var b strings.Builder
	b.WriteString("export REQUIRE_PRIVILEGED=1\n")
	for i, j := range p.jobs {
		fmt.Fprintf(&b, "job %d %s", i, quote("/"+path.Join(guestSources, j.pkg)))
		for _, word := range j.command {
			b.WriteString(" " + quote(word))
		}
		b.WriteString("\n")
	}
	return b.String()
}

func quote(word string) string { return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'" }
