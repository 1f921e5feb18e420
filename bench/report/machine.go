package report

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
)

// A Machine is what the figures of a page depend on besides the programs.
type Machine struct {
	CPU      string    `json:"cpu"`
	Cores    int       `json:"cores"`
	Memory   float64   `json:"memoryBytes"`
	Kernel   string    `json:"kernel"`
	Load     string    `json:"load"` // over the last minutes, when the run began
	Versions []Version `json:"versions"`
}

// A Version is that of a program which is measured, or which measures.
type Version struct {
	Program string `json:"program"`
	Version string `json:"version"`
}

// like says whether figures of two machines can be compared. What else runs on them is another matter.
func (m Machine) like(other Machine) bool {
	return m.CPU == other.CPU && m.Cores == other.Cores && m.Kernel == other.Kernel
}

// asked are the programs and how they tell their versions.
var asked = [][]string{
	{"iptables", "--version"},
	{"iptables-legacy", "--version"},
	{"ipset", "--version"},
	{"knotd", "--version"},
	{"unbound", "-V"},
	{"dnsmasq", "--version"},
	{"clang-14", "--version"},
}

// ThisMachine describes the machine that the program runs on. What cannot be found out is said to be unknown.
func ThisMachine(ctx context.Context) Machine {
	m := Machine{
		CPU:    field("/proc/cpuinfo", "model name"),
		Cores:  runtime.NumCPU(),
		Kernel: strings.TrimSpace(read("/proc/sys/kernel/osrelease")),
		Load:   loadText.FindString(read("/proc/loadavg")),
	}
	if kib, err := strconv.ParseFloat(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 64); err == nil {
		m.Memory = kib * 1024
	}
	if strings.Contains(field("/proc/cpuinfo", "flags"), "hypervisor") {
		m.CPU += ", virtual"
	}
	m.Versions = append(m.Versions, Version{"go", runtime.Version()})
	for _, command := range asked {
		if version := ask(ctx, command); version != "" {
			m.Versions = append(m.Versions, Version{command[0], version})
		}
	}
	return m
}

func (m Machine) rows() [][]string {
	rows := [][]string{
		{"CPU", m.CPU},
		{"cores", strconv.Itoa(m.Cores)},
		{"memory", Bytes(m.Memory)},
		{"kernel", m.Kernel},
		{"load before (1, 5, 15 minutes)", m.Load},
	}
	for _, v := range m.Versions {
		rows = append(rows, []string{v.Program, v.Version})
	}
	return rows
}

// loadText is the three averages, of what /proc/loadavg says.
var loadText = regexp.MustCompile(`^\S+ \S+ \S+`)

var versionText = regexp.MustCompile(`\d+(\.\d+)+.*`)

// ask gives the first version number in the first line that a program writes, with what follows it. Empty:
// there is no such program.
func ask(ctx context.Context, command []string) string {
	output, err := exec.CommandContext(ctx, command[0], command[1:]...).CombinedOutput() //nolint:gosec // from the list above
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(output), "\n")
	first = strings.TrimSpace(first)
	if version := versionText.FindString(first); version != "" {
		version, _, _ = strings.Cut(version, "  ")
		return version
	}
	return first
}

func read(file string) string {
	content, err := os.ReadFile(file) //nolint:gosec // from the list above
	if err != nil {
		return "unknown"
	}
	return string(content)
}

// field gives what follows "key:" in a file of the kernel.
func field(file, key string) string {
	for line := range strings.Lines(read(file)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == key {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

// String is the machine in one line.
func (m Machine) String() string {
	return fmt.Sprintf("%s, %d cores, %s, Linux %s, load %s", m.CPU, m.Cores, Bytes(m.Memory), m.Kernel, m.Load)
}
