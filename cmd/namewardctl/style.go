package main

import (
	"io"
	"os"
	"strings"
)

// style is what a cell means to the eye.
type style int

const (
	stylePlain style = iota
	styleTitle
	styleGood
	styleBad
	styleWarning
	styleFaint
)

// painter colours text, or leaves it alone.
type painter struct{ colours bool }

// painter colours only for a person: on a terminal, and not where NO_COLOR asks for none.
func (p *program) painter() painter {
	if value, ok := p.lookupEnv("NO_COLOR"); ok && value != "" {
		return painter{}
	}
	if terminal, _ := p.lookupEnv("TERM"); terminal == "dumb" {
		return painter{}
	}
	return painter{colours: isTerminal(p.stdout)}
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// unified colours a difference in unified form.
func (p painter) unified(text string) string {
	if !p.colours {
		return text
	}
	var out strings.Builder
	for line := range strings.Lines(text) {
		s := stylePlain
		switch {
		case strings.HasPrefix(line, "diff "), strings.HasPrefix(line, "--- "), strings.HasPrefix(line, "+++ "):
			s = styleTitle
		case strings.HasPrefix(line, "+"):
			s = styleGood
		case strings.HasPrefix(line, "-"):
			s = styleBad
		case strings.HasPrefix(line, "@@"):
			s = styleFaint
		}
		body, end := strings.CutSuffix(line, "\n")
		out.WriteString(p.apply(s, body))
		if end {
			out.WriteByte('\n')
		}
	}
	return out.String()
}

func (p painter) apply(s style, text string) string {
	codes := [...]string{
		styleTitle: "1", styleGood: "32", styleBad: "31", styleWarning: "33", styleFaint: "2",
	}
	if !p.colours || s == stylePlain || text == "" {
		return text
	}
	return "\x1b[" + codes[s] + "m" + text + "\x1b[0m"
}
