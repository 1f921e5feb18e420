package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"sigs.k8s.io/yaml"
)

// document is one resource in a file, as JSON, with its place for messages.
type document struct {
	source string
	number int
	line   int
	json   []byte
}

func (d document) place() string {
	return fmt.Sprintf("%s: document %d (line %d)", d.source, d.number, d.line)
}

// readSource reads a file, or standard input for "-".
func (p *program) readSource(path string) (source string, data []byte, err error) {
	if path == "-" {
		data, err = io.ReadAll(p.stdin)
		return "standard input", data, err
	}
	data, err = p.readFile(path)
	return path, data, err
}

// splitDocuments finds the documents of a file: YAML documents, and JSON objects, which may follow
// one another without a separator. A document that cannot be read is reported with its place.
func splitDocuments(source string, data []byte) ([]document, error) {
	var (
		documents []document
		errs      []error
	)
	next := 1
	for _, part := range splitYAML(data) {
		values, faultLine, err := part.values()
		for i := range values {
			values[i].source, values[i].number = source, next
			next++
		}
		documents = append(documents, values...)
		if err != nil {
			broken := document{source: source, number: next, line: faultLine}
			next++
			errs = append(errs, fmt.Errorf("%s: %w", broken.place(), err))
		}
	}
	return documents, errors.Join(errs...)
}

// chunk is the text of one YAML document, and the line of the file at which it begins.
type chunk struct {
	text string
	line int
}

// splitYAML cuts at the document markers. YAML allows "---" and "..." at the start of a line nowhere
// else, so looking at lines is exact.
func splitYAML(data []byte) []chunk {
	var chunks []chunk
	text := string(bytes.TrimPrefix(data, []byte("\ufeff")))
	// The chunk that is being read is text[begin:at], from the line `first` on.
	begin, at, first, number := 0, 0, 1, 0
	finish := func(next, nextLine int) {
		if hasContent(text[begin:at]) {
			chunks = append(chunks, chunk{text[begin:at], first})
		}
		begin, first = next, nextLine
	}
	for line := range strings.Lines(text) {
		number++
		switch {
		// Directives and comments before the marker belong to the document that it begins.
		case isMarker(line, "---") && hasContent(text[begin:at]):
			finish(at, number)
		case isMarker(line, "..."):
			finish(at+len(line), number+1)
		}
		at += len(line)
	}
	finish(at, number+1)
	return chunks
}

func isMarker(line, marker string) bool {
	rest, found := strings.CutPrefix(line, marker)
	return found && (rest == "" || strings.ContainsAny(rest[:1], " \t\r\n"))
}

// hasContent says whether there is more than comments, directives and an opening marker.
func hasContent(text string) bool {
	for line := range strings.Lines(text) {
		if isMarker(line, "---") {
			line = line[len("---"):]
		}
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' && line[0] != '%' {
			return true
		}
	}
	return false
}

// values returns the documents of a chunk: one of YAML, or several of JSON. What begins like JSON is
// read as JSON only: a YAML parser would take the first of several objects and pass over the others.
// With an error comes the line at which the document begins that has it.
func (c chunk) values() (documents []document, faultLine int, err error) {
	body, line := c.content()
	if strings.HasPrefix(strings.TrimSpace(body), "{") {
		return jsonValues(body, line)
	}
	value, err := c.yamlValue()
	if err != nil {
		return nil, line, err
	}
	return []document{{line: line, json: value}}, 0, nil
}

// content returns the text without what comes before the first content, and the line where that is.
func (c chunk) content() (body string, line int) {
	body, line = c.text, c.line
	for text := range strings.Lines(c.text) {
		if hasContent(text) {
			break
		}
		body = body[len(text):]
		line++
	}
	return strings.TrimPrefix(body, "---"), line
}

func jsonValues(body string, line int) (documents []document, faultLine int, err error) {
	decoder := json.NewDecoder(strings.NewReader(body))
	for {
		end := decoder.InputOffset()
		start := end + int64(len(body[end:])-len(strings.TrimLeft(body[end:], " \t\r\n")))
		begins := line + strings.Count(body[:start], "\n")
		var value json.RawMessage
		err := decoder.Decode(&value)
		if errors.Is(err, io.EOF) {
			return documents, 0, nil
		}
		if err != nil {
			return documents, begins, fmt.Errorf("read JSON: %w", err)
		}
		documents = append(documents, document{line: begins, json: value})
	}
}

// yamlValue converts to JSON. A key that is there twice is refused.
func (c chunk) yamlValue() ([]byte, error) {
	// The blank lines make the line numbers in the parser's messages those of the file.
	text := strings.Repeat("\n", c.line-1) + c.text
	value, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("read YAML: %w", err)
	}
	return value, nil
}
