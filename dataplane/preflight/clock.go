package preflight

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// plausible is before any release of this program: a clock that is behind it was never set.
var plausible = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Clock checks the clocks that mappings expire by: the boot clock, and across a boot that of the wall.
func Clock() Requirement {
	const name = "clock"
	var boot unix.Timespec
	for clock, id := range map[string]int32{"monotonic": unix.CLOCK_MONOTONIC, "boot": unix.CLOCK_BOOTTIME} {
		if err := unix.ClockGettime(id, &boot); err != nil {
			return Fail(name, fmt.Sprintf("read %s clock: %v", clock, err), "allow the system call clock_gettime")
		}
	}
	return judgeWallClock(name, time.Now())
}

func judgeWallClock(name string, now time.Time) Requirement {
	if now.Before(plausible) {
		return Warn(name, "it is "+now.UTC().Format(time.RFC3339)+", which cannot be",
			"set the clock (a time service, or a battery): after a reboot, mappings of before live too long or end too soon")
	}
	return Found(name, now.UTC().Format(time.RFC3339))
}

// Synchronised checks whether a time service keeps the clock.
func Synchronised() Requirement {
	var state unix.Timex // asks, and sets nothing
	_, err := unix.Adjtimex(&state)
	return judgeSynchronised(state.Status, err)
}

func judgeSynchronised(status int32, err error) Requirement {
	const name = "clock synchronisation"
	const remedy = "run a time service (systemd-timesyncd, chrony): the times of mappings and flow events are compared between nodes"
	switch {
	case err != nil:
		return Warn(name, "not known: "+err.Error(), remedy)
	case status&unix.STA_UNSYNC != 0:
		return Warn(name, "the kernel says that nobody keeps the clock", remedy)
	}
	return Found(name, "kept by a time service")
}
