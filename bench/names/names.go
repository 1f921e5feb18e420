// Package names brings the domain names that the bench fills tables with: real ones from a file, or names
// made alike.
package names

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/nameward/nameward/api/domain"
)

// Enough is how many names a full run needs: a million that are known, and others that are not.
const Enough = 1_200_000

// Read reads a list of names, one a line, plain or compressed (.gz). Of a line of several fields, as in
// rankings ("1,example.com"), the last one counts. What is no domain name, or was there before, is left out
// and counted.
func Read(file string) (list []string, leftOut int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, 0, fmt.Errorf("read names: %w", err)
	}
	defer func() { _ = f.Close() }()
	var from io.Reader = f
	if strings.HasSuffix(file, ".gz") {
		unzipped, err := gzip.NewReader(f)
		if err != nil {
			return nil, 0, fmt.Errorf("read names from %s: %w", file, err)
		}
		from = unzipped
	}
	list, leftOut, err = parse(from)
	if err == nil && len(list) == 0 {
		err = errors.New("no domain name in it")
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read names from %s: %w", file, err)
	}
	return list, leftOut, nil
}

func parse(r io.Reader) (list []string, leftOut int, err error) {
	known := make(map[string]struct{})
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fields := strings.FieldsFunc(lines.Text(), func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		name, ok := canonical(fields[len(fields)-1])
		if _, again := known[name]; again || !ok {
			leftOut++
			continue
		}
		known[name] = struct{}{}
		list = append(list, name)
	}
	return list, leftOut, lines.Err()
}

// canonical gives a name that a pattern may have, in lower case and without the final dot.
func canonical(text string) (string, bool) {
	if strings.Contains(text, "*") {
		return "", false
	}
	pattern, err := domain.ParsePattern(text)
	if err != nil {
		return "", false
	}
	return pattern.String(), true
}
