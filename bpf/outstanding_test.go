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
	question string // name, type and class; empty: none
	age      time.Duration
	answered bool
}

// outstanding is what the rules say about who may still be answered. Two questions have a place under one
// key. A third one takes that of the older; one that was answered is older than any.
type outstanding map[outstandingKey]*[2]outstandingQuestion

func (o outstanding) ask(key outstandingKey, question string) {
	if o[key] == nil {
		o[key] = &[2]outstandingQuestion{}
	}
	places := o[key]
	asked := outstandingQuestion{question: question}
	switch {
	case places[0].question == question:
		places[0] = asked
	case places[1].question == question:
		places[1] = asked
	case places[0].free():
		places[0] = asked
	case places[1].free() || places[1].age > places[0].age:
		places[1] = asked
	default:
		places[0] = asked
	}
	for i := range places { // whatever was asked before is older now
		if places[i].question != question {
			places[i].age++
		}
	}
}

func (q outstandingQuestion) free() bool { return q.question == "" || q.answered }

// pass lets time go by.
func (o outstanding) pass(passed time.Duration) {
	for _, places := range o {
		for i := range places {
			places[i].age += passed
		}
	}
}

// judge gives why a response with a question is not an answer, or nil if it is one.
func (o outstanding) judge(key outstandingKey, question string, timeout time.Duration) []bpf.DatapathCounter {
	places := o[key]
	if places == nil {
		return only(bpf.DatapathCounterCOUNTER_NO_QUERY)
	}
	if question == "" {
		return only(bpf.DatapathCounterCOUNTER_MALFORMED)
	}
	for _, q := range places {
		switch {
		case q.question != question:
		case q.answered:
			return only(bpf.DatapathCounterCOUNTER_DUPLICATE)
		case q.age > timeout:
			return only(bpf.DatapathCounterCOUNTER_LATE)
		default:
			return nil
		}
	}
	return only(bpf.DatapathCounterCOUNTER_WRONG_QUESTION)
}

// use marks a question as answered.
func (o outstanding) use(key outstandingKey, question string) {
	for i := range o[key] {
		if o[key][i].question == question {
			o[key][i].answered = true
		}
	}
}

// open is how many questions are not answered.
func (o outstanding) open(key outstandingKey) (count int) {
	for _, q := range o[key] {
		if !q.free() {
			count++
		}
	}
	return count
}
