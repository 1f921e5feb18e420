package e2e_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestGrpcurlPage runs every command of docs/grpcurl.md, with no proto files.
func TestGrpcurlPage(t *testing.T) {
	f := newFleet(t)
	page, err := os.ReadFile("../docs/grpcurl.md")
	f.must(err)
	bin, err := filepath.Abs("../.bin")
	f.must(err)
	text := strings.NewReplacer("\\\n", " ", "/run/nameward/agent.sock", f.Socket()).Replace(string(page))
	commands := 0
	for i, block := range strings.Split(text, "```") {
		if i%2 == 0 {
			continue
		}
		// A request may go over lines: a command begins where a line begins with grpcurl.
		for _, command := range strings.Split(block, "\ngrpcurl ")[1:] {
			commands++
			out, err := f.command(t.Context(), "sh", "-c", "PATH="+bin+":$PATH; grpcurl "+command)
			watched := strings.Contains(command, "-max-time") && strings.Contains(out, "synced") && strings.Contains(out, "DeadlineExceeded")
			if err != nil && !watched {
				t.Errorf("grpcurl %s: %v\n%s", command, err, out)
			}
		}
	}
	if commands < 9 {
		t.Errorf("got %d commands from the page, want all of them", commands)
	}
}
