package bpf_test

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf/bpftest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	instructionsFile = "testdata/verified_instructions.json"
	verifierLimit    = 1_000_000
	growthPercent    = 10
)

// TestVerifiedInstructions keeps an eye on what the verifier has to do: near its limit of a million, a
// small change can make a program fail on some kernel. Kernels differ; where another one needs more
// than the recorded one, only the limit counts.
func TestVerifiedInstructions(t *testing.T) {
	d := bpftest.Load(t, 1)
	got := make(map[string]uint32)
	for _, program := range []*ebpf.Program{d.DnsQueryForwarded, d.DnsQueryLocal, d.DnsResponse, d.DnsUntrusted, d.DnsUnasked, d.EgressForwarded, d.EgressLocal, d.AcceptForwarded, d.AcceptLocal, d.DatapathPrograms.Remap} {
		info, err := program.Info()
		if err != nil {
			t.Fatalf("read info of %v: %v", program, err)
		}
		count, known := info.VerifiedInstructions()
		if !known {
			t.Fatal("this kernel does not tell how many instructions it verified (Linux 5.16 and later do)")
		}
		got[info.Name] = count
		if count > verifierLimit/2 {
			t.Errorf("%s: %d instructions, more than half of the verifier's limit", info.Name, count)
		}
	}
	want := golden{Kernel: kernel(t), Instructions: got}
	if *update {
		want.write(t)
		return
	}
	want.read(t)
	if want.Kernel != kernel(t) {
		t.Logf("recorded on Linux %s, this is %s: %v", want.Kernel, kernel(t), got)
		return
	}
	for name, count := range got {
		if limit := want.Instructions[name] * (100 + growthPercent) / 100; count > limit {
			t.Errorf("%s: %d instructions, recorded are %d. If the growth is worth it, run this test with -update and say so in the commit message.", name, count, want.Instructions[name])
		}
	}
}

type golden struct {
	Kernel       string            `json:"kernel"`
	Instructions map[string]uint32 `json:"instructions"`
}

func (g *golden) write(t *testing.T) {
	t.Helper()
	text, err := json.MarshalIndent(g, "", "  ")
	if err == nil {
		err = os.WriteFile(instructionsFile, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (g *golden) read(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(instructionsFile)
	if err == nil {
		*g = golden{}
		err = json.Unmarshal(text, g)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// kernel gives the running kernel's major and minor release.
func kernel(t *testing.T) string {
	t.Helper()
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.SplitN(string(release), ".", 3)
	if len(parts) < 3 {
		t.Fatalf("kernel release %q", release)
	}
	return parts[0] + "." + parts[1]
}
