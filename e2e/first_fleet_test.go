package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/nameward/nameward/e2e/lab"
)

// TestFirstFleet follows docs/first-fleet.md, command by command, on a machine for each that the page has, with a DNS
// server and services beyond. What the page shows of an answer must be in it.
func TestFirstFleet(t *testing.T) {
	l := newLab(t)
	g := &guide{t: t, lab: l, machines: map[string]*lab.Machine{}}
	for i, name := range []string{"policy", "admin", "web-1", "web-2", "build-1"} { // policy's address is in the zone
		host, err := l.AddHost(t.Context(), name, i+2)
		if err != nil {
			t.Fatal(err)
		}
		g.machines[name] = startMachine(t, l, host, name)
		resolver := fmt.Sprintf("nameserver %s\n", lab.ResolverV4)
		if err := os.WriteFile(g.machines[name].Path("/etc/resolv.conf"), []byte(resolver), 0o644); err != nil { //nolint:gosec // as on every machine
			t.Fatal(err)
		}
	}
	page, err := os.ReadFile("../docs/first-fleet.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("192.0.2.53", lab.ResolverV4.String(), "_amd64.deb", "_"+runtime.GOARCH+".deb").Replace(string(page))
	for _, s := range steps(t, text) {
		g.follow(s)
	}
}

// guide is the fleet that the page builds.
type guide struct {
	t        *testing.T
	lab      *lab.Lab
	machines map[string]*lab.Machine
	versions int // of packages that were made
}

// step is a command of the page, with what the page shows of its answer.
type step struct {
	machine, command string
	shows            []string
}

var (
	prompt  = regexp.MustCompile(`^([a-z][a-z0-9 -]*)[#$] (.*)$`)
	hereDoc = regexp.MustCompile(`<<'?(\w+)'?`)
)

// steps reads the commands of the page's blocks.
func steps(t *testing.T, page string) (all []step) {
	t.Helper()
	for i, block := range strings.Split(page, "\n```") {
		if i%2 == 0 {
			continue
		}
		lines := strings.Split(strings.TrimPrefix(block, "\n"), "\n")
		for n := 0; n < len(lines); n++ {
			parts := prompt.FindStringSubmatch(lines[n])
			if parts == nil {
				if len(all) == 0 {
					t.Fatalf("the page begins with an answer: %q", lines[n])
				}
				last := &all[len(all)-1]
				last.shows = append(last.shows, lines[n])
				continue
			}
			s := step{machine: parts[1], command: parts[2]}
			if end := hereDoc.FindStringSubmatch(s.command); end != nil {
				for s.command += "\n"; lines[n] != end[1]; s.command += lines[n] + "\n" {
					n++
				}
			}
			all = append(all, s)
		}
	}
	if len(all) < 50 {
		t.Fatalf("the page has %d commands", len(all))
	}
	return all
}

func (g *guide) follow(s step) {
	g.t.Helper()
	g.t.Logf("%s# %s", s.machine, s.command)
	switch {
	case s.machine == "checkout":
		g.makePackages()
	case s.machine == "each node":
		for _, name := range []string{"web-1", "web-2", "build-1"} {
			g.run(name, s)
		}
	case strings.HasPrefix(s.command, "scp "):
		g.copy(s)
	default:
		g.run(s.machine, s)
	}
}

// makePackages stands for the checkout: it puts packages of the next version into dist of the admin's machine.
func (g *guide) makePackages() {
	g.t.Helper()
	g.versions++
	dir := buildPackages(g.t, filepath.Join(programs, "nameward-agent"), fmt.Sprintf("1.%d.0", g.versions))
	dist := g.machines["admin"].Path("/root/dist")
	if err := errors.Join(os.RemoveAll(dist), os.MkdirAll(dist, 0o755)); err != nil { //nolint:gosec // as on any machine
		g.t.Fatal(err)
	}
	if out, err := exec.CommandContext(g.t.Context(), "cp", "-r", dir+"/.", dist).CombinedOutput(); err != nil {
		g.t.Fatalf("%v\n%s", err, out)
	}
}

// copy stands for scp, from the admin's machine into root's home or an absolute path of another.
func (g *guide) copy(s step) {
	g.t.Helper()
	words := strings.Fields(s.command)
	to, path, is := strings.Cut(words[2], ":")
	machine := g.machines[strings.TrimPrefix(to, "root@")]
	found, _ := filepath.Glob(g.machines[s.machine].Path("/root/" + words[1]))
	if !is || len(words) != 3 || machine == nil || len(found) != 1 {
		g.t.Fatalf("%s: copies %v to %q", s.command, found, to)
	}
	if !strings.HasPrefix(path, "/") {
		path = "/root/" + path
	}
	content, err := os.ReadFile(found[0])
	if err != nil {
		g.t.Fatal(err)
	}
	info, err := os.Stat(found[0])
	if err != nil {
		g.t.Fatal(err)
	}
	// Like scp: what is there keeps its owner and mode.
	if err := os.WriteFile(machine.Path(path), content, info.Mode().Perm()); err != nil {
		g.t.Fatal(err)
	}
}

// run runs a command as root does who has just logged in. What only asks is asked until the answer is as shown, since
// what nodes tell takes a moment.
func (g *guide) run(machine string, s step) {
	g.t.Helper()
	m := g.machines[machine]
	if m == nil {
		g.t.Fatalf("there is no machine %q", machine)
	}
	once := func() error {
		command := m.Command(g.t.Context(), "sh", "-l", "-c", "cd; "+s.command)
		out, err := command.CombinedOutput()
		if differs, is := errors.AsType[*exec.ExitError](err); is && differs.ExitCode() == 3 && regexp.MustCompile(`namewardctl (diff|explain)`).MatchString(s.command) {
			err = nil // that is their answer
		}
		if err != nil {
			return fmt.Errorf("%s# %s: %w\n%s", machine, s.command, err, out)
		}
		return shown(string(out), s.shows)
	}
	asks := regexp.MustCompile(`^namewardctl (get|explain)`).MatchString(s.command)
	err := once()
	if err != nil && asks {
		err = lab.Await(g.t.Context(), once, nil)
	}
	if err != nil {
		g.t.Fatalf("%v\n%s", err, g.logs())
	}
}

// shown returns nil when each line is one of the answer, with any text for `…` and any blanks for blanks, in any order.
func shown(answer string, lines []string) error {
	for _, line := range lines {
		words := strings.Fields(line)
		for i, word := range words {
			words[i] = strings.ReplaceAll(regexp.QuoteMeta(word), "…", ".*")
		}
		is := regexp.MustCompile(`^\s*` + strings.Join(words, `\s+`) + `\s*$`)
		if !slices.ContainsFunc(strings.Split(answer, "\n"), is.MatchString) {
			return fmt.Errorf("the page shows %q, and the answer is\n%s", line, answer)
		}
	}
	return nil
}

// logs are what the services said.
func (g *guide) logs() string {
	var text strings.Builder
	for name, m := range g.machines {
		for _, unit := range []string{agentUnit, serverUnit} {
			if log, err := os.ReadFile(m.Path("/run/" + unit + ".log")); err == nil {
				fmt.Fprintf(&text, "%s on %s:\n%s\n", unit, name, log)
			}
		}
	}
	return text.String()
}
