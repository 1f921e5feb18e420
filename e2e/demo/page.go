package main

import (
	"fmt"
	"os"
	"strings"
)

// Colours, on a terminal only.
var (
	bold, dim, green, red, plain = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[31m", "\x1b[0m"
)

func title() {
	info, err := os.Stdout.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 || os.Getenv("NO_COLOR") != "" {
		bold, dim, green, red, plain = "", "", "", "", ""
	}
	fmt.Printf(`%sNameward: a machine may reach the names you allow, and nothing else.%s

   client  ──────────  node  ──────────  world
   a workload          routes, and runs    a DNS server (knot), services on
   10.91.1.2           nameward-server     130,000 addresses
   fd91:1::2           and nameward-agent
`, bold, plain)
}

func heading(number int, text string) { fmt.Printf("\n%s%d. %s%s\n", bold, number, text, plain) }

func say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

func good(format string, args ...any) {
	fmt.Printf("   %s✔%s %s\n", green, plain, fmt.Sprintf(format, args...))
}

func refused(format string, args ...any) {
	fmt.Printf("   %s✘%s %s\n", red, plain, fmt.Sprintf(format, args...))
}

// quote shows what an operator types, or what a program prints.
func quote(text string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		fmt.Printf("   %s│%s %s\n", dim, plain, line)
	}
}

func end() {
	fmt.Printf("\n%sThat was it.%s Everything the demo made is removed. Next: README.md, “Five minutes”.\n", bold, plain)
}
