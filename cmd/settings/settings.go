// Package settings gives values to flags that the command line left open: each flag of a program is also
// an environment variable (NAMEWARD_DATA_DIR for data-dir) and a key of the YAML file that the flag config
// names. The command line goes before the environment, the environment before the file.
package settings

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

// ConfigFlag is the name of the flag that names the file.
const ConfigFlag = "config"

// Source is where values come from.
type Source struct {
	LookupEnv func(string) (string, bool)
	ReadFile  func(string) ([]byte, error)
	// Silent names settings that are known but not asked for: their variables are not looked up, and their
	// keys may be in the file, with any value. They need not be flags.
	Silent []string
}

// Complete sets every flag that the command line did not. An error joins every fault, each with the name of
// the variable, or of the file and the key. An empty variable counts as none, as does a key without a value;
// a flag that refuses its value keeps the one it had.
func Complete(flags *pflag.FlagSet, from Source) error {
	settled := make(map[string]bool)
	for _, name := range from.Silent {
		settled[name] = true
	}
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		// Not Visit: the flags of a command's parents are parsed in another set, but marked here too.
		if f.Changed || settled[f.Name] || ofCommandLine(f.Name) {
			settled[f.Name] = true
			return
		}
		variable := "NAMEWARD_" + strings.ReplaceAll(strings.ToUpper(f.Name), "-", "_")
		text, ok := from.LookupEnv(variable)
		if !ok || text == "" {
			return
		}
		settled[f.Name] = true
		if err := set(f, text); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", variable, err))
		}
	})
	file := flags.Lookup(ConfigFlag)
	if file == nil || file.Value.String() == "" {
		return errors.Join(faults...)
	}
	return errors.Join(append(faults, completeFromFile(flags, settled, file.Value.String(), from))...)
}

// completeFromFile sets the flags that are not settled.
func completeFromFile(flags *pflag.FlagSet, settled map[string]bool, path string, from Source) error {
	values, err := readFile(path, from.ReadFile)
	if err != nil {
		return err
	}
	known := keys(flags, from.Silent)
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch {
		case !slices.Contains(known, key):
			faults = append(faults, fmt.Errorf("%s: %s: unknown key%s", path, key, Suggestion(key, known)))
		case !settled[key]:
			if err := setValue(flags.Lookup(key), values[key]); err != nil {
				faults = append(faults, fmt.Errorf("%s: %s: %w", path, key, err))
			}
		}
	}
	return errors.Join(faults...)
}

// keys lists what the file may say.
func keys(flags *pflag.FlagSet, silent []string) []string {
	known := slices.Clone(silent)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != ConfigFlag && !ofCommandLine(f.Name) {
			known = append(known, f.Name)
		}
	})
	return known
}

// ofCommandLine tells flags that are requests rather than settings. Cobra adds them to those of a program.
func ofCommandLine(name string) bool { return name == "help" || name == "version" }
