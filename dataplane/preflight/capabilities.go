package preflight

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// capability is a right that the agent needs.
type capability struct {
	name  string
	value int
	admin bool // CAP_SYS_ADMIN stands in for it
	use   string
}

// Capabilities checks the rights of this process. Those of iptables-legacy are needed only where it is used.
func Capabilities(legacy bool) Requirement {
	const name = "capabilities"
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return Fail(name, "read capabilities: "+err.Error(), "allow the system call capget")
	}
	effective := uint64(data[0].Effective) | uint64(data[1].Effective)<<32
	needed := []capability{
		{"CAP_BPF", unix.CAP_BPF, true, "loads programs, and makes and opens maps"},
		{"CAP_PERFMON", unix.CAP_PERFMON, true, "lets programs read the control group of a socket"},
		{"CAP_NET_ADMIN", unix.CAP_NET_ADMIN, false, "writes iptables rules, and cuts connections"},
	}
	if legacy {
		needed = append(needed, capability{"CAP_NET_RAW", unix.CAP_NET_RAW, false, "opens the socket of iptables-legacy"})
	}
	return judgeCapabilities(name, effective, needed)
}

func judgeCapabilities(name string, effective uint64, needed []capability) Requirement {
	has := func(value int) bool { return effective&(1<<value) != 0 }
	var there, missing, names []string
	for _, c := range needed {
		if has(c.value) || c.admin && has(unix.CAP_SYS_ADMIN) {
			there = append(there, c.name)
			continue
		}
		names = append(names, c.name)
		missing = append(missing, fmt.Sprintf("%s is missing: it %s", c.name, c.use))
	}
	if len(missing) == 0 {
		return Found(name, strings.Join(there, ", "))
	}
	return Fail(name, strings.Join(missing, "\n"), "run as root, or grant "+strings.Join(names, " and ")+
		" (CapabilityBoundingSet= of the systemd unit, deployments/README.md)")
}
