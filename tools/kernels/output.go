package main

import (
	"regexp"
	"strings"
)

// output is what tests print, taken apart.
type output struct {
	failed  []string
	skipped []string // with the reason
	passed  int
	lacks   []string // lines of check that are not ok
	said    map[string]string
	test    string // whose lines are read
}

var (
	verdictLine = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): (\S+) \(`)
	turnLine    = regexp.MustCompile(`^=== (?:RUN|NAME|CONT)\s+(\S+)`)
	sayingLine  = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)
	checkLine   = regexp.MustCompile(`^\s*(WARNING|FAILED)\s+\S`)
)

func (o *output) read(line string) {
	if m := turnLine.FindStringSubmatch(line); m != nil {
		o.test = m[1]
	} else if m := sayingLine.FindStringSubmatch(line); m != nil {
		if o.said == nil {
			o.said = map[string]string{}
		}
		o.said[o.test] = m[1]
	} else if m := verdictLine.FindStringSubmatch(line); m != nil {
		o.verdict(m[1], m[2])
	} else if checkLine.MatchString(line) {
		o.lacks = append(o.lacks, strings.TrimSpace(line))
	}
}

func (o *output) verdict(verdict, test string) {
	switch verdict {
	case "FAIL":
		o.failed = append(o.failed, test)
	case "SKIP":
		o.skipped = append(o.skipped, test+": "+o.said[test])
	default:
		o.passed++
	}
}
