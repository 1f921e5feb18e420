package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

func TestSplitDocuments(t *testing.T) {
	tests := []struct {
		name, text string
		want       []string // line and JSON of each document
	}{
		{"nothing", "", nil},
		{"comments only", "# a\n---\n# b\n...\n", nil},
		{"one without a marker", "a: 1\n", []string{`1 {"a":1}`}},
		{"marker first, comment behind it", "# head\n--- # the first\na: 1\n---\nb: 2", []string{`3 {"a":1}`, `5 {"b":2}`}},
		{"content behind the marker", "--- [1]\n--- {\"b\": 2}\n", []string{`1 [1]`, `2 {"b": 2}`}},
		{"end markers", "a: 1\n...\n# between\nb: 2\n...\n", []string{`1 {"a":1}`, `4 {"b":2}`}},
		{"a directive belongs to what follows", "%YAML 1.1\n---\na: 1\n", []string{`3 {"a":1}`}},
		{"no marker inside a line or a block", "a: --- b\nc: |\n  ---\n  d\n", []string{`1 {"a":"--- b","c":"---\nd\n"}`}},
		{"four hyphens are text", "a: 1\n---\n----\n", []string{`1 {"a":1}`, `3 "----"`}},
		{"carriage returns", "a: 1\r\n---\r\nb: 2\r\n", []string{`1 {"a":1}`, `3 {"b":2}`}},
		{"byte order mark", "\ufeffa: 1\n", []string{`1 {"a":1}`}},
		{"JSON one after another", "# all\n{\"a\": 1}{\"b\":\n2}\n\n{}", []string{`2 {"a": 1}`, "2 {\"b\":\n2}", `5 {}`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			documents, err := splitDocuments("file", []byte(test.text))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for i, document := range documents {
				if document.number != i+1 {
					t.Errorf("document %d has number %d", i+1, document.number)
				}
				got = append(got, fmt.Sprintf("%d %s", document.line, document.json))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("documents of %q (-want +got):\n%s", test.text, diff)
			}
		})
	}
}

func TestSplitDocumentsNamesThePlaceOfAFault(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"YAML", "a: 1\n---\n\nb: [\n", "file: document 2 (line 4): read YAML: yaml: line 4: did not find expected node content"},
		{"JSON", "{}\n\n{]", "file: document 2 (line 3): read JSON: invalid character ']' looking for beginning of object key string"},
		{"cut short", "{}\n{", "file: document 2 (line 2): read JSON: unexpected EOF"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			documents, err := splitDocuments("file", []byte(test.text))
			if err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
			if len(documents) != 1 {
				t.Errorf("got %d whole documents, want 1", len(documents))
			}
		})
	}
}

// FuzzDocuments holds that no file, however broken, ends the program, and that what is accepted is a
// policy or a domain set by its name.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte("name: policies/a\nrules:\n- action: ALLOW\n---\n{\"name\": \"policies/b\"}{}"))
	f.Add([]byte("--- # x\n%YAML\n...\n&a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		documents, _ := splitDocuments("file", data)
		for _, document := range documents {
			if !json.Valid(document.json) {
				t.Errorf("document %d is not JSON: %s", document.number, document.json)
			}
		}
		manifests, _ := parseManifests(documents)
		for _, manifest := range manifests {
			name, err := parseResourceName(manifest.resource.GetName())
			if err != nil || name.collection != policiesCollection && name.collection != domainSetsCollection {
				t.Errorf("accepted a resource named %q", manifest.resource.GetName())
			}
		}
	})
}

// check judges a resource as the server does.
func check(resource resource) error {
	switch resource := resource.(type) {
	case *namewardv1.Policy:
		_, err := ruleset.ParsePolicy(resource)
		return err
	case *namewardv1.DomainSet:
		errs := []error{ruleset.CheckDomainSetName("name", resource.GetName())}
		for _, text := range resource.GetDomains() {
			_, err := domain.ParsePattern(text)
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	return fmt.Errorf("%T is no resource", resource)
}

// TestExamples holds that the examples are documents that apply takes and resources that the server does.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("..", "..", "examples", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("found no examples: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		documents, err := splitDocuments(file, data)
		if err != nil {
			t.Error(err)
		}
		manifests, err := parseManifests(documents)
		if err != nil {
			t.Error(err)
		}
		for _, manifest := range manifests {
			if err := check(manifest.resource); err != nil {
				t.Errorf("%s: %v", manifest.document.place(), err)
			}
		}
	}
}
