package node

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTicks is what the kernel counts the time of processes in, a second (USER_HZ).
const clockTicks = 100

// cpuTime is what a process and its ended children have had of the processors.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, may have spaces. Behind it: the state, which is the third field.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const utime, cstime = 14 - 3, 17 - 3
	if len(fields) <= cstime {
		return 0, fmt.Errorf("read times of process %d: %q", pid, text)
	}
	ticks := 0
	for _, field := range fields[utime : cstime+1] {
		n, err := strconv.Atoi(field)
		if err != nil {
			return 0, fmt.Errorf("read times of process %d: %w", pid, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / clockTicks, nil
}

// memory is what of a process is in memory, in bytes.
type memory struct {
	resident  float64
	anonymous float64 // its own
	file      float64 // of files, and pages that it shares with the kernel; shared memory too
	peak      float64 // of resident, since its start
}

func memoryOf(pid int) (m memory, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return m, err
	}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		kilobytes, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		if err != nil {
			continue
		}
		switch size := kilobytes * 1024; name {
		case "VmRSS":
			m.resident = size
		case "RssAnon":
			m.anonymous = size
		case "RssFile", "RssShmem":
			m.file += size
		case "VmHWM":
			m.peak = size
		}
	}
	return m, nil
}
