package deployments_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one of a Dockerfile: its word, and the rest with continued lines joined.
type instruction struct{ word, rest string }

func dockerfile(t *testing.T, path string) (all []instruction) {
	t.Helper()
	text := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(read(t, path), "")
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		all = append(all, instruction{word, strings.TrimSpace(rest)})
	}
	return all
}

var (
	words   = []string{"ARG", "FROM", "RUN", "COPY", "LABEL", "USER", "EXPOSE", "STOPSIGNAL", "ENTRYPOINT", "CMD"}
	pinned  = regexp.MustCompile(`^(scratch|\$\{\w+\}@\$\{DEBIAN_DIGEST\})( AS \w+)?$`)
	vector  = regexp.MustCompile(`^\[("[^"]+"(, )?)+\]$`)
	program = regexp.MustCompile(`^linux_\$\{TARGETARCH\}/([\w-]+)$`)
)

// TestImages: bases are pinned by a digest that who builds must give, nothing is fetched by URL, what is copied is
// made by the build, and the last user is the one that deployments/README.md says.
func TestImages(t *testing.T) {
	for file, want := range map[string]struct{ user, from, entry string }{
		"docker/server.Dockerfile": {"65532:65532", "scratch", `["/usr/bin/nameward-server"]`},
		"docker/agent.Dockerfile":  {"0:0", "${DEBIAN}@${DEBIAN_DIGEST}", `["/usr/bin/nameward-agent"]`},
	} {
		t.Run(file, func(t *testing.T) {
			last := map[string]string{}
			declared := []string{}
			for _, i := range dockerfile(t, file) {
				last[i.word] = i.rest
				checkInstruction(t, i)
				if i.word == "ARG" {
					declared = append(declared, i.rest)
				}
				for _, variable := range regexp.MustCompile(`\$\{(\w+)\}`).FindAllStringSubmatch(i.rest, -1) {
					if !slices.ContainsFunc(declared, func(arg string) bool { name, _, _ := strings.Cut(arg, "="); return name == variable[1] }) {
						t.Errorf("%s %s: %s is not declared", i.word, i.rest, variable[1])
					}
				}
			}
			if last["USER"] != want.user || last["FROM"] != want.from || last["ENTRYPOINT"] != want.entry || last["STOPSIGNAL"] != "SIGTERM" {
				t.Errorf("user %s, base %s, entry point %s, stopped by %s", last["USER"], last["FROM"], last["ENTRYPOINT"], last["STOPSIGNAL"])
			}
			if slices.Contains(declared, "DEBIAN_DIGEST=") || !slices.Contains(declared, "DEBIAN_DIGEST") {
				t.Error("the digest has a default, or none is asked for")
			}
		})
	}
}

func checkInstruction(t *testing.T, i instruction) {
	t.Helper()
	if !slices.Contains(words, i.word) {
		t.Errorf("%s is not used here", i.word)
	}
	switch i.word {
	case "FROM":
		if !pinned.MatchString(i.rest) {
			t.Errorf("FROM %s is not pinned", i.rest)
		}
	case "ENTRYPOINT", "CMD":
		if !vector.MatchString(i.rest) {
			t.Errorf("%s %s would run a shell", i.word, i.rest)
		}
	case "RUN":
		if regexp.MustCompile(`curl|wget|https?:`).MatchString(i.rest) {
			t.Errorf("RUN %s fetches something that is not pinned", i.rest)
		}
		if strings.Contains(i.rest, "apt-get install") && (!strings.Contains(i.rest, "--no-install-recommends") || !strings.Contains(i.rest, "rm -rf /var/lib/apt/lists/*")) {
			t.Errorf("RUN %s leaves what nobody needs", i.rest)
		}
	case "COPY":
		fields := strings.Fields(i.rest)
		for _, source := range fields[:len(fields)-1] {
			switch {
			case strings.HasPrefix(source, "--"), slices.Contains(fields, "--from=certificates"):
			case !program.MatchString(source):
				t.Errorf("COPY %s: %s is not made by the build", i.rest, source)
			default:
				if found, _ := filepath.Glob("../cmd/" + program.FindStringSubmatch(source)[1] + "/main.go"); len(found) == 0 {
					t.Errorf("COPY %s: there is no such program", i.rest)
				}
			}
		}
	}
}
