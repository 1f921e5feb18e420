package ruleset

import (
	"errors"
	"strconv"
)

// ParseUID reads the id of a user.
func ParseUID(text string) (uint32, error) {
	id, err := strconv.ParseUint(text, 10, 32)
	if err != nil || id == noUser {
		return 0, errors.New("is the id of no user")
	}
	return uint32(id), nil
}

// ParseCgroup reads the path of a control group as a workload has it.
func ParseCgroup(text string) (string, error) {
	path, fault := canonicalCgroup(text)
	if fault != "" {
		return "", errors.New(fault)
	}
	return path, nil
}

// ParseUnit reads the name of a systemd unit as a workload has it.
func ParseUnit(text string) (string, error) {
	if fault := unitFault(text); fault != "" {
		return "", errors.New(fault)
	}
	return text, nil
}
