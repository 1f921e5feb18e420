// Package settings gives values to flags that the command line left open: each flag of a program is also
// an environment variable (NAMEWARD_DATA_DIR for data-dir) and a key of the YAML file that the flag config
// names. The command line goes before the environment, the environment before the file.
package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// ConfigFlag is the name of the flag that names the file.
const ConfigFlag = "config"

// Source is where values come from.
type Source struct {
	LookupEnv func(string) (string, bool)
	ReadFile  func(string) ([]byte, error)
}

// Complete sets every flag that the command line did not. An error joins every fault, each with the name of
// the variable, or of the file and the key. An empty variable counts as none.
func Complete(flags *pflag.FlagSet, from Source) error {
	given := map[string]bool{"help": true, "version": true}
	var faults []error
	flags.VisitAll(func(f *pflag.Flag) {
		// Not Visit: the flags of a command's parents are parsed in another set, but marked here too.
		given[f.Name] = given[f.Name] || f.Changed
		if given[f.Name] {
			return
		}
		variable := "NAMEWARD_" + strings.ReplaceAll(strings.ToUpper(f.Name), "-", "_")
		value, ok := from.LookupEnv(variable)
		if !ok || value == "" {
			return
		}
		given[f.Name] = true
		if err := f.Value.Set(value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %q: %w", variable, value, err))
		}
	})
	file := flags.Lookup(ConfigFlag)
	if file == nil || file.Value.String() == "" {
		return errors.Join(faults...)
	}
	given[ConfigFlag] = true
	return errors.Join(append(faults, completeFromFile(flags, given, file.Value.String(), from))...)
}

func completeFromFile(flags *pflag.FlagSet, given map[string]bool, path string, from Source) error {
	data, err := from.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	var values map[string]any
	// As a float64 a large number would be printed with an exponent, which no flag reads.
	exact := func(d *json.Decoder) *json.Decoder {
		d.UseNumber()
		return d
	}
	if err := yaml.UnmarshalStrict(data, &values, exact); err != nil {
		return fmt.Errorf("read configuration %s: %w", path, err)
	}
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(values)) {
		f := flags.Lookup(key)
		if f == nil || slices.Contains([]string{ConfigFlag, "help", "version"}, key) {
			faults = append(faults, fmt.Errorf("read configuration %s: %s: unknown key", path, key))
			continue
		}
		if given[key] {
			continue
		}
		if err := set(f, values[key]); err != nil {
			faults = append(faults, fmt.Errorf("%s: %s: %w", path, key, err))
		}
	}
	return errors.Join(faults...)
}

// set gives a flag a scalar, or a repeatable one a list, or one of pairs a mapping.
func set(f *pflag.Flag, value any) error {
	var texts []string
	switch v := value.(type) {
	case []any:
		for _, element := range v {
			texts = append(texts, fmt.Sprint(element))
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			texts = append(texts, key+"="+fmt.Sprint(v[key]))
		}
	default:
		texts = []string{fmt.Sprint(value)}
	}
	repeatable := f.Value.Type() == "stringSlice" || f.Value.Type() == "stringToString"
	if len(texts) != 1 && !repeatable {
		return errors.New("takes one value")
	}
	for _, text := range texts {
		if err := f.Value.Set(text); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
	}
	return nil
}
