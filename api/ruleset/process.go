package ruleset

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

const (
	// MaxCgroupLevels is how deep below the root a control group may be that a workload names.
	MaxCgroupLevels = 32
	// maxFileName is the longest name of a control group, NAME_MAX (linux/limits.h).
	maxFileName = 255
	cgroupMount = "/sys/fs/cgroup"
	// noUser is the user id that stands for none.
	noUser = math.MaxUint32
)

// unitTypes are the kinds of units that have a control group.
var unitTypes = []string{".service", ".scope", ".slice", ".socket", ".mount", ".swap"}

const sliceSuffix = ".slice"

const forwardedProcess = "the node's own processes have neither a source CIDR nor an incoming interface: make two workloads of it"

// SelectsProcesses reports whether the workload is of the node's own processes rather than of forwarded
// traffic.
func (w Workload) SelectsProcesses() bool {
	return w.Host || w.UID != nil || w.Cgroup != "" || w.Unit != ""
}

func (w Workload) selectsProcess(c Connection) bool {
	return (w.UID == nil || c.UID != nil && *c.UID == *w.UID) &&
		(w.Cgroup == "" || inCgroup(c.Cgroup, w.Cgroup)) &&
		(w.Unit == "" || c.Unit == w.Unit || slices.ContainsFunc(unitNames(c.Cgroup), func(name string) bool {
			return slices.Contains(CgroupNames(w.Unit), name)
		}))
}

// inCgroup reports whether a control group is another, or below it.
func inCgroup(path, of string) bool {
	return path == of || of == "/" && path != "" || strings.HasPrefix(path, of+"/")
}

// unitNames returns the names in a control group's path that are units of systemd: slices, from the root,
// and the first name behind them. What is below is that unit's own business: whoever it was delegated to
// may give it any name.
func unitNames(path string) []string {
	names := CgroupLevels(path)
	if i := slices.IndexFunc(names, func(name string) bool { return !strings.HasSuffix(name, sliceSuffix) }); i >= 0 {
		return names[:i+1]
	}
	return names
}

// CgroupLevels returns the names on a control group's path, from the root, which has none.
func CgroupLevels(path string) []string {
	if path == "" || path == "/" {
		return nil
	}
	return strings.Split(path[1:], "/")
}

// CgroupNames returns the names that the control group of a unit may have. systemd puts `_` before what
// could be taken for a file of a controller, as in `_cpu.service`: which are known depends on its
// version. No other unit has a name that begins with one `_`.
func CgroupNames(unit string) []string {
	if unit[0] == '_' || unit[0] == '.' {
		return []string{"_" + unit}
	}
	if len(unit) == maxFileName {
		return []string{unit}
	}
	return []string{unit, "_" + unit}
}

// canonicalCgroup returns the path without a slash at its end, and what is wrong with it.
func canonicalCgroup(path string) (canonical, fault string) {
	if path == cgroupMount || strings.HasPrefix(path, cgroupMount+"/") {
		return path, fmt.Sprintf("begins with the place where control groups are mounted: leave out %s", cgroupMount)
	}
	if !strings.HasPrefix(path, "/") {
		return path, "is no path from the root of the control groups: it has to begin with `/`"
	}
	if path == "/" {
		return path, ""
	}
	path = strings.TrimSuffix(path, "/")
	names := CgroupLevels(path)
	if len(names) > MaxCgroupLevels {
		return path, fmt.Sprintf("has more than %d levels", MaxCgroupLevels)
	}
	for _, name := range names {
		if name == "" || name == "." || name == ".." || len(name) > maxFileName || strings.ContainsAny(name, "\n\x00") {
			return path, fmt.Sprintf("has a level %q, which no control group is called", name)
		}
	}
	return path, ""
}

// unitFault says what is wrong with the name of a unit.
func unitFault(unit string) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
	dot := strings.LastIndexByte(unit, '.')
	switch {
	case len(unit) > maxFileName:
		return fmt.Sprintf("is longer than %d characters", maxFileName)
	case strings.ContainsFunc(unit, func(r rune) bool { return !strings.ContainsRune(letters, r) }):
		return "is no name of a systemd unit: those have letters, digits and `:-_.\\@`"
	case dot <= 0 || !slices.Contains(unitTypes, unit[dot:]):
		return "is no systemd unit that has a control group: its name ends in " + strings.Join(unitTypes, ", ")
	case unit[dot-1] == '@':
		return "is a template: name an instance, or the slice of all"
	case unit == "-"+sliceSuffix:
		return "is the root of all: set `host`"
	case strings.HasPrefix(CgroupNames(unit)[0], "_") && len(unit) == maxFileName:
		return "has no control group: its name is too long for one"
	}
	return ""
}
