package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

// format is how results are printed.
type format string

const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

// String implements pflag.Value.
func (f *format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *format) Type() string { return "format" }

// Set implements pflag.Value.
func (f *format) Set(value string) error {
	known := []format{formatTable, formatWide, formatJSON, formatYAML}
	if !slices.Contains(known, format(value)) {
		return fmt.Errorf("want one of table, wide, json, yaml")
	}
	*f = format(value)
	return nil
}

// structured says whether the output is for programs.
func (f *format) structured() bool { return *f == formatJSON || *f == formatYAML }

// encode returns the protobuf JSON form on one line. protojson varies its white space on purpose;
// scripts and golden files need one form.
func encode(message proto.Message) ([]byte, error) {
	varying, err := protojson.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, varying); err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}
	return compact.Bytes(), nil
}

// printList prints a list response: an object with the collection as its only key, also when empty.
func printList[T proto.Message](p *program, collection string, items []T) error {
	var list bytes.Buffer
	list.WriteString(`{"` + collection + `":[`)
	for i, item := range items {
		encoded, err := encode(item)
		if err != nil {
			return err
		}
		if i > 0 {
			list.WriteByte(',')
		}
		list.Write(encoded)
	}
	list.WriteString("]}")
	return p.printDocument(list.Bytes())
}

// printMessages prints each message as a document of its own.
func printMessages[T proto.Message](p *program, messages []T) error {
	for i, message := range messages {
		encoded, err := encode(message)
		if err != nil {
			return err
		}
		if i > 0 && p.options.output == formatYAML {
			if err := p.print("---\n"); err != nil {
				return err
			}
		}
		if err := p.printDocument(encoded); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) printDocument(encoded []byte) error {
	if p.options.output == formatYAML {
		text, err := yaml.JSONToYAML(encoded)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		return p.print(string(text))
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, encoded, "", "  "); err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	return p.print(indented.String() + "\n")
}

// print writes a result.
func (p *program) print(text string) error {
	if _, err := fmt.Fprint(p.stdout, text); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// complain writes a message. Where even that fails there is nobody left to tell.
func (p *program) complain(text string) {
	_, _ = fmt.Fprintln(p.stderr, strings.TrimRight(text, "\n"))
}
