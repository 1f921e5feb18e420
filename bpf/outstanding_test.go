package bpf_test

import (
	"time"

	"github.com/nameward/nameward/bpf"
)

// outstandingKey is by what an answer finds the questions that it may answer.
type outstandingKey struct {
	client int
	id     uint16
}

// An outstandingQuestion was asked at some time, and is answered once.
type outstandingQuestion struct {
	age      time.Duration
	answered bool
}

// outstanding is what the rules say about who may still be answered. As many questions as one likes may be
// asked under one key, as long as there is room.
type outstanding map[outstandingKey]map[string]*outstandingQuestion

func (o outstanding) ask(key outstandingKey, question string) {
	if o[key] == nil {
		o[key] = map[string]*outstandingQuestion{}
	}
	o[key][question] = &outstandingQuestion{}
}

// pass lets time go by.
func (o outstanding) pass(passed time.Duration) {
	for _, questions := range o {
		for _, q := range questions {
			q.age += passed
		}
	}
}

// judge gives why a response with a question is not an answer, or nil if it is one.
func (o outstanding) judge(key outstandingKey, question string, timeout time.Duration) []bpf.DatapathCounter {
	questions := o[key]
	if questions == nil {
		return only(bpf.DatapathCounterCOUNTER_NO_QUERY)
	}
	if question == "" {
		return only(bpf.DatapathCounterCOUNTER_MALFORMED)
	}
	switch q := questions[question]; {
	case q == nil:
		return only(bpf.DatapathCounterCOUNTER_WRONG_QUESTION)
	case q.answered:
		return only(bpf.DatapathCounterCOUNTER_DUPLICATE)
	case q.age > timeout:
		return only(bpf.DatapathCounterCOUNTER_LATE)
	}
	return nil
}

// use marks a question as answered.
func (o outstanding) use(key outstandingKey, question string) { o[key][question].answered = true }

// open is how many questions are not answered.
func (o outstanding) open() (count int) {
	for _, questions := range o {
		for _, q := range questions {
			if !q.answered {
				count++
			}
		}
	}
	return count
}
