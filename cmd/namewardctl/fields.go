package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/nameward/nameward/cmd/settings"
)

// checkFields compares decoded JSON (with json.Number) to the message that it is to become, and
// returns each fault with the path of its field: protojson would stop at the first, and not say where.
func checkFields(message protoreflect.MessageDescriptor, value any) []error {
	c := &fieldChecker{}
	c.message(message, value, "")
	return c.errs
}

type fieldChecker struct{ errs []error }

func (c *fieldChecker) fault(path, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if path != "" {
		text = path + ": " + text
	}
	c.errs = append(c.errs, fmt.Errorf("%s", text))
}

func (c *fieldChecker) message(message protoreflect.MessageDescriptor, value any, path string) {
	// Well-known types have forms of their own, which protojson judges.
	if value == nil || message.ParentFile().Package() == "google.protobuf" {
		return
	}
	object, ok := value.(map[string]any)
	if !ok {
		c.fault(path, "want a mapping of keys to values, not %s", kindOf(value))
		return
	}
	for _, key := range slices.Sorted(maps.Keys(object)) {
		keyPath := strings.TrimPrefix(path+"."+key, ".")
		field := message.Fields().ByJSONName(key)
		if field == nil {
			field = message.Fields().ByTextName(key)
		}
		if field == nil {
			c.fault(keyPath, "unknown key%s", settings.Suggestion(key, jsonNames(message)))
			continue
		}
		c.field(field, object[key], keyPath)
	}
}

func jsonNames(message protoreflect.MessageDescriptor) []string {
	names := make([]string, message.Fields().Len())
	for i := range names {
		names[i] = message.Fields().Get(i).JSONName()
	}
	return names
}

func (c *fieldChecker) field(field protoreflect.FieldDescriptor, value any, path string) {
	switch {
	case value == nil:
	case field.IsMap():
		object, ok := value.(map[string]any)
		if !ok {
			c.fault(path, "want a mapping of keys to values, not %s", kindOf(value))
			return
		}
		for _, key := range slices.Sorted(maps.Keys(object)) {
			c.single(field.MapValue(), object[key], fmt.Sprintf("%s[%q]", path, key))
		}
	case field.IsList():
		list, ok := value.([]any)
		if !ok {
			c.fault(path, "want a list, not %s", kindOf(value))
			return
		}
		for i, item := range list {
			c.single(field, item, fmt.Sprintf("%s[%d]", path, i))
		}
	default:
		c.single(field, value, path)
	}
}

// single checks a value that is neither a list nor a map, or one element of those.
func (c *fieldChecker) single(field protoreflect.FieldDescriptor, value any, path string) {
	switch field.Kind() {
	case protoreflect.MessageKind:
		if value == nil {
			c.fault(path, "must not be empty")
			return
		}
		c.message(field.Message(), value, path)
	case protoreflect.EnumKind:
		c.enum(field.Enum(), value, path)
	case protoreflect.StringKind:
		if _, ok := value.(string); !ok {
			c.fault(path, "want a string, not %s: put it in quotes", kindOf(value))
		}
	case protoreflect.BoolKind:
		if _, ok := value.(bool); !ok {
			c.fault(path, "want true or false, not %s", kindOf(value))
		}
	case protoreflect.Int32Kind:
		if _, err := strconv.ParseInt(fmt.Sprint(value), 10, 32); err != nil {
			c.fault(path, "want a whole number, not %s", kindOf(value))
		}
	case protoreflect.Uint32Kind:
		if _, err := strconv.ParseUint(fmt.Sprint(value), 10, 32); err != nil {
			c.fault(path, "want a whole number from 0 to 4294967295, not %s", kindOf(value))
		}
	}
}

func (c *fieldChecker) enum(enum protoreflect.EnumDescriptor, value any, path string) {
	text, isText := value.(string)
	if isText && enum.Values().ByName(protoreflect.Name(text)) != nil {
		return
	}
	if number, ok := value.(json.Number); ok {
		if n, err := strconv.ParseInt(number.String(), 10, 32); err == nil && enum.Values().ByNumber(protoreflect.EnumNumber(n)) != nil {
			return
		}
	}
	var known []string
	for i := range enum.Values().Len() {
		// The zero value only stands for an absent one.
		if v := enum.Values().Get(i); v.Number() != 0 {
			known = append(known, string(v.Name()))
		}
	}
	c.fault(path, "want one of %s, not %s%s", strings.Join(known, ", "), kindOf(value), settings.Suggestion(strings.ToUpper(text), known))
}

// kindOf shows a scalar as it is and names anything larger.
func kindOf(value any) string {
	switch value := value.(type) {
	case nil:
		return "an empty value"
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		return strconv.Quote(value)
	}
	return fmt.Sprint(value)
}
