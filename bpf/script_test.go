package bpf_test

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nameward/nameward/api/domain"
)

// A script is what happens between clients and their resolver, and under which settings. What must come of
// it the oracle says, so a file needs no expectation to be a regression test.
type script struct {
	patterns              [2][]domain.Pattern // of the generations
	active, learning      uint32
	limit                 int // addresses of a response
	minTTL, maxTTL, grace time.Duration
	tcp                   bool // else UDP
	steps                 []step
}

type verb string

const (
	ask    verb = "ask"    // a client sends a query
	answer verb = "answer" // a client is sent a response
	age    verb = "age"    // time passes
)

type step struct {
	verb    verb
	client  int // place in the list of clients
	message []byte
	tells   int // how many bytes more the UDP header tells than there are
	passed  time.Duration
}

// String gives the form that parseScript reads.
func (s *script) String() string {
	var text strings.Builder
	fmt.Fprintf(&text, "limit %d\nttl %v %v %v\nstate %d %d\n", s.limit, s.minTTL, s.maxTTL, s.grace, s.active, s.learning)
	if s.tcp {
		text.WriteString("tcp\n")
	}
	for generation, patterns := range s.patterns {
		for _, pattern := range patterns {
			fmt.Fprintf(&text, "pattern %d %s\n", generation, pattern)
		}
	}
	for _, step := range s.steps {
		if step.verb == age {
			fmt.Fprintf(&text, "age %v\n", step.passed)
		} else {
			fmt.Fprintf(&text, "%s %d %d %x\n", step.verb, step.client, step.tells, step.message)
		}
	}
	return text.String()
}

// parseScript reads lines of words. A `#` begins a comment.
func parseScript(t testing.TB, text string) *script {
	t.Helper()
	s := &script{limit: 1000, minTTL: 30 * time.Second, maxTTL: 24 * time.Hour, grace: 30 * time.Second}
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for number := 1; lines.Scan(); number++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if err := s.parseLine(t, words[0], words[1:]); err != nil {
			t.Fatalf("line %d: %q: %v", number, line, err)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *script) parseLine(t testing.TB, word string, rest []string) (err error) {
	number := func(i int) int {
		n, fault := strconv.Atoi(rest[i])
		if fault != nil {
			err = fault
		}
		return n
	}
	duration := func(i int) time.Duration {
		d, fault := time.ParseDuration(rest[i])
		if fault != nil {
			err = fault
		}
		return d
	}
	want := map[string]int{"limit": 1, "ttl": 3, "state": 2, "pattern": 2, "age": 1, "ask": 3, "answer": 3}[word]
	if want != len(rest) && (want != 3 || len(rest) != 2) { // a message may be empty
		return fmt.Errorf("%d words, want %d", len(rest), want)
	}
	switch word {
	case "tcp":
		s.tcp = true
	case "limit":
		s.limit = number(0)
	case "ttl":
		s.minTTL, s.maxTTL, s.grace = duration(0), duration(1), duration(2)
	case "state":
		s.active, s.learning = uint32(number(0)), uint32(number(1))
	case "pattern":
		generation := number(0) & 1
		s.patterns[generation] = append(s.patterns[generation], parsePatterns(t, rest[1])...)
	case "age":
		s.steps = append(s.steps, step{verb: age, passed: duration(0)})
	default:
		message := step{verb: verb(word), client: number(0), tells: number(1)}
		if len(rest) == 3 {
			message.message, err = hex.DecodeString(rest[2])
		}
		s.steps = append(s.steps, message)
	}
	return err
}
