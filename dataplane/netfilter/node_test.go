package netfilter_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/nameward/nameward/dataplane/netfilter"
)

// pinPrograms pins programs of a build, each of which matches nothing.
func pinPrograms(t *testing.T, bpfDir, build string) netfilter.Programs {
	t.Helper()
	pin := func(name string) string {
		program, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Type:         ebpf.SocketFilter,
			Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
			License:      "GPL",
		})
		if err != nil {
			t.Fatal(err)
		}
		defer program.Close()
		path := filepath.Join(bpfDir, name+"-"+build)
		if err := program.Pin(path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return netfilter.Programs{
		DNSQueryForwarded: pin("dns_query_forwarded"),
		DNSQueryLocal:     pin("dns_query_local"),
		DNSResponse:       pin("dns_response"),
		DNSUntrusted:      pin("dns_untrusted"),
		DNSUnasked:        pin("dns_unasked"),
		EgressForwarded:   pin("egress_forwarded"),
		EgressLocal:       pin("egress_local"),
	}
}

func removePins(t *testing.T, programs netfilter.Programs) {
	t.Helper()
	for _, pin := range []string{
		programs.DNSQueryForwarded, programs.DNSQueryLocal, programs.DNSResponse, programs.DNSUntrusted, programs.DNSUnasked, programs.EgressForwarded, programs.EgressLocal,
	} {
		if err := os.Remove(pin); err != nil {
			t.Fatal(err)
		}
	}
}

// command runs a program in the test's namespaces.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	output, err := exec.Command(name, args...).Output()
	if err != nil {
		var stderr string
		if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Output returns it as it is
			stderr = string(exit.Stderr)
		}
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, stderr)
	}
	return string(output)
}

// rules returns every rule and user-defined chain of both families.
func rules(t *testing.T, backend string) string {
	t.Helper()
	var lines []string
	for _, family := range []string{"iptables", "ip6tables"} {
		for line := range strings.Lines(command(t, family+"-"+backend+"-save")) {
			if strings.HasPrefix(line, "-A") || strings.HasPrefix(line, ":") && strings.Contains(line, " - ") {
				lines = append(lines, family+" "+line)
			}
		}
	}
	return strings.Join(lines, "")
}
