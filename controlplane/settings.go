package controlplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// ConfigFlag names the YAML file whose keys are the names of flags.
const ConfigFlag = "config"

// Complete gives values to the flags that the command line left open: from the environment
// (NAMEWARD_DATA_DIR for data-dir), else from the file that the config flag names. An error joins every
// fault, each with the name of the variable or the key.
func Complete(flags *pflag.FlagSet, lookupEnv func(string) (string, bool), readFile func(string) ([]byte, error)) error {
	given := map[string]bool{}
	flags.Visit(func(f *pflag.Flag) { given[f.Name] = true })
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		variable := "NAMEWARD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		text, ok := lookupEnv(variable)
		if !ok || given[f.Name] || f.Name == "help" {
			return
		}
		given[f.Name] = true
		if err := flags.Set(f.Name, text); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", variable, err))
		}
	})
	if f := flags.Lookup(ConfigFlag); f != nil && f.Value.String() != "" {
		faults = append(faults, completeFromFile(flags, given, f.Value.String(), readFile))
	}
	return errors.Join(faults...)
}

func completeFromFile(flags *pflag.FlagSet, given map[string]bool, path string, readFile func(string) ([]byte, error)) error {
	text, err := readFile(path)
	if err != nil {
		return fmt.Errorf("%s: %w", ConfigFlag, err)
	}
	settings := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &settings); err != nil {
		return fmt.Errorf("%s: read %s: %w", ConfigFlag, path, err)
	}
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		f := flags.Lookup(key)
		if f == nil || key == ConfigFlag || key == "help" {
			faults = append(faults, fmt.Errorf("%s: %s: %q is no setting", ConfigFlag, path, key))
			continue
		}
		if given[key] {
			continue
		}
		text, err := scalar(settings[key])
		if err == nil {
			err = flags.Set(key, text)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %s: %w", ConfigFlag, path, key, err))
		}
	}
	return errors.Join(faults...)
}

func scalar(value any) (string, error) {
	switch value := value.(type) {
	case string:
		return value, nil
	case bool:
		return fmt.Sprint(value), nil
	case float64:
		// The reader makes JSON of YAML, where every number is one of these.
		return strconv.FormatFloat(value, 'f', -1, 64), nil
	default:
		return "", fmt.Errorf("%v is no single value", value)
	}
}
