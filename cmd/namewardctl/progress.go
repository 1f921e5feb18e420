package main

import "fmt"

// progress tells a person how far long work is: on a terminal, and only there.
type progress struct {
	print       func(text string)
	noun        string
	done, total int
	shown       bool
}

// progressFrom is how many items make work long.
const progressFrom = 20_000

func (p *program) newProgress(noun string, total int) *progress {
	made := &progress{noun: noun, total: total}
	if total >= progressFrom && isTerminal(p.stderr) {
		made.print = func(text string) { _, _ = fmt.Fprint(p.stderr, text) }
	}
	return made
}

// step says that so many more items are done.
func (p *progress) step(items int) {
	p.done += items
	if p.print == nil {
		return
	}
	p.shown = true
	p.print(fmt.Sprintf("\r%s of %s %s", thousands(p.done), thousands(p.total), p.noun))
}

// end clears the line, for what comes behind.
func (p *progress) end() {
	if p.shown {
		p.print("\r\x1b[K")
	}
}
