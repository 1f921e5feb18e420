package settings

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// pairsType is how pflag names the type of a repeatable flag of pairs.
const pairsType = "stringToString"

// readFile returns what a YAML file says, numbers in the file's own digits.
func readFile(path string, read func(string) ([]byte, error)) (map[string]any, error) {
	data, err := read(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	// As a float64 a large number would be printed with an exponent, which no flag reads.
	exact := func(d *json.Decoder) *json.Decoder {
		d.UseNumber()
		return d
	}
	var values map[string]any
	if err := yaml.UnmarshalStrict(data, &values, exact); err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return values, nil
}

// setValue gives a flag a scalar, a repeatable one also a list, and one of pairs also a mapping.
func setValue(f *pflag.Flag, value any) error {
	texts, err := textsFor(f.Value, value)
	if err != nil {
		return err
	}
	for _, text := range texts {
		if err := set(f, text); err != nil {
			return err
		}
	}
	return nil
}

// textsFor returns what the command line would say, one text for each time that it would name the flag.
func textsFor(of pflag.Value, value any) ([]string, error) {
	switch v := value.(type) {
	case nil:
		return nil, nil
	case []any:
		if !repeatable(of) {
			return nil, errors.New("takes one value, not a list")
		}
		var texts []string
		for _, element := range v {
			text, err := scalar(element)
			if err != nil {
				return nil, err
			}
			texts = append(texts, text)
		}
		return texts, nil
	case map[string]any:
		if of.Type() != pairsType {
			return nil, errors.New("takes no mapping")
		}
		var texts []string
		for _, key := range slices.Sorted(maps.Keys(v)) {
			text, err := scalar(v[key])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
			texts = append(texts, key+"="+text)
		}
		return texts, nil
	}
	text, err := scalar(value)
	return []string{text}, err
}

func scalar(value any) (string, error) {
	switch value.(type) {
	case string, bool, json.Number:
		return fmt.Sprint(value), nil
	}
	return "", errors.New("takes plain values only")
}

func repeatable(of pflag.Value) bool {
	_, list := of.(pflag.SliceValue)
	return list || of.Type() == pairsType
}

// set gives a flag a text. The numbers and durations of pflag become zero when they refuse a text, and a
// program that goes on to validate them would tell of a second fault that nobody made.
func set(f *pflag.Flag, text string) error {
	before := f.Value.String()
	err := f.Value.Set(text)
	if err == nil {
		return nil
	}
	// A repeatable flag changes only after it understood the text, and does not read what it prints.
	if !repeatable(f.Value) {
		_ = f.Value.Set(before) // a default need not be a text that the flag would take
	}
	return fmt.Errorf("%q: %w", text, err)
}
