package main

import (
	"errors"
	"net/netip"
	"strings"
	"unicode/utf8"

	"github.com/nameward/nameward/api/domain"
)

// domainList gathers the domain patterns of lists, each once, in canonical form.
type domainList struct {
	subdomains bool
	domains    []string
	seen       map[string]struct{}
	leftOut    []leftOutLine
}

// leftOutLine is a line that says something a domain set cannot say.
type leftOutLine struct {
	Source string `json:"source"`
	Line   int    `json:"line"`
	Text   string `json:"text"`
	Reason string `json:"reason"`
}

// maxShownLine bounds what is shown of a line: rules of browsers may have kilobytes.
const maxShownLine = 120

func (l *domainList) read(source, text string) {
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
		number++
		line = strings.TrimSpace(line)
		if isComment(line) {
			continue
		}
		patterns, err := l.parse(line)
		if err != nil {
			if len(line) > maxShownLine {
				line = strings.ToValidUTF8(line[:maxShownLine], "") + "…"
			}
			if !utf8.ValidString(line) {
				line = strings.ToValidUTF8(line, "\uFFFD")
			}
			l.leftOut = append(l.leftOut, leftOutLine{source, number, line, err.Error()})
			continue
		}
		for _, pattern := range patterns {
			if _, twice := l.seen[pattern]; !twice {
				l.seen[pattern] = struct{}{}
				l.domains = append(l.domains, pattern)
			}
		}
	}
}

func isComment(line string) bool {
	return line == "" || line[0] == '#' || line[0] == '!' || strings.HasPrefix(line, "[Adblock")
}

var (
	errException  = errors.New("an exception: a set has none, so name what is to be excepted in a rule before")
	errCosmetic   = errors.New("hides parts of pages")
	errConditions = errors.New("holds under conditions only, which a set cannot say")
	errOpenEnd    = errors.New("matches names that only begin like it: no ^ at its end")
	errURL        = errors.New("is about URLs, not about whole domains")
	errAddress    = errors.New("is an address: that is for the cidrs of a rule")
	errLocal      = errors.New("names of the machine itself")
	errPattern    = errors.New("is no domain pattern")
)

// parse returns the patterns that a line stands for.
func (l *domainList) parse(line string) ([]string, error) {
	switch {
	case strings.HasPrefix(line, "@@"):
		return nil, errException
	case strings.Contains(line, "##"), strings.Contains(line, "#@#"), strings.Contains(line, "#?#"), strings.Contains(line, "#$#"):
		return nil, errCosmetic
	case strings.HasPrefix(line, "||"):
		return parseAdblock(line[2:])
	case strings.ContainsAny(line, "/|^$="):
		return nil, errURL
	}
	line, _, _ = strings.Cut(line, "#")
	fields := strings.Fields(line)
	if _, err := netip.ParseAddr(fields[0]); err == nil {
		return l.parseHosts(fields[1:])
	}
	if len(fields) > 1 {
		return nil, errPattern
	}
	if base, below := strings.CutPrefix(fields[0], "."); below {
		return withSubdomains(base)
	}
	return l.named(fields[0])
}

// named returns the pattern of a plain list or a hosts file.
func (l *domainList) named(text string) ([]string, error) {
	if l.subdomains && !strings.Contains(text, "*") {
		return withSubdomains(text)
	}
	return patterns(text)
}

// parseHosts reads the names behind the address of a line of a hosts file.
func (l *domainList) parseHosts(names []string) ([]string, error) {
	if len(names) == 0 {
		return nil, errAddress
	}
	var all []string
	local := 0
	for _, name := range names {
		if isLocal(name) {
			local++
			continue
		}
		found, err := l.named(name)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	if local == len(names) {
		return nil, errLocal
	}
	return all, nil
}

// isLocal reports whether a hosts file has the name for the machine itself, as those of lists do too.
func isLocal(name string) bool {
	switch strings.ToLower(name) {
	case "localhost", "localhost.localdomain", "local", "broadcasthost":
		return true
	}
	return strings.HasPrefix(name, "ip6-")
}

// parseAdblock reads a rule behind its `||`, which stands for a domain and all below it.
func parseAdblock(rule string) ([]string, error) {
	rule, options, conditional := strings.Cut(rule, "$")
	if conditional {
		for option := range strings.SplitSeq(options, ",") {
			switch option {
			case "important", "all", "document", "doc": // say nothing about which connections
			default:
				return nil, errConditions
			}
		}
	}
	base, ended := strings.CutSuffix(rule, "^")
	switch {
	case strings.ContainsAny(base, "/^|:"):
		return nil, errURL
	case !ended:
		return nil, errOpenEnd
	case strings.HasPrefix(base, "*."):
		return patterns(base)
	}
	return withSubdomains(base)
}

// withSubdomains returns the patterns of a domain and of all below it.
func withSubdomains(base string) ([]string, error) { return patterns(base, "*."+base) }

func patterns(texts ...string) ([]string, error) {
	all := make([]string, 0, len(texts))
	for _, text := range texts {
		if _, err := netip.ParseAddr(text); err == nil {
			return nil, errAddress
		}
		pattern, err := domain.ParsePattern(text)
		if err != nil {
			return nil, errPattern
		}
		all = append(all, pattern.String())
	}
	return all, nil
}
