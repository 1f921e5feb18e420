// Package preflight is what a node must have before an agent runs on it: the words in which each stage
// says what it found, and the checks of the machine that belong to no stage: capabilities, clock, disk and
// resolvers. Each is tried, not guessed from a version, and leaves nothing behind.
package preflight

// Level says how bad it is.
type Level string

// Levels.
const (
	OK      Level = "ok"
	Warning Level = "warning" // the agent runs; something will be less than it could be
	Failed  Level = "failed"  // the agent does not start
)

// Requirement is one thing that the node needs, and whether it has it.
type Requirement struct {
	Name   string
	Level  Level
	Detail string // what was found
	Remedy string // what to do; empty when all is well
}

// Found is a requirement that is met.
func Found(name, detail string) Requirement {
	return Requirement{Name: name, Level: OK, Detail: detail}
}

// Warn is a requirement that is met in part, or may cease to be.
func Warn(name, detail, remedy string) Requirement {
	return Requirement{Name: name, Level: Warning, Detail: detail, Remedy: remedy}
}

// Fail is a requirement that is not met.
func Fail(name, detail, remedy string) Requirement {
	return Requirement{Name: name, Level: Failed, Detail: detail, Remedy: remedy}
}

// Judge is Found, or Fail with the error.
func Judge(name, detail string, err error, remedy string) Requirement {
	if err != nil {
		return Fail(name, err.Error(), remedy)
	}
	return Found(name, detail)
}
