package bpf_test

import (
	"encoding/binary"
	"math/rand/v2"
	"time"

	"github.com/miekg/dns"
)

// A scripter writes the scripts of one shard, which share their settings and patterns.
type scripter struct {
	*vocabulary
	head  script
	names []wireName
}

func newScripter(random *rand.Rand) *scripter {
	w := &scripter{vocabulary: newVocabulary(random)}
	w.head = script{limit: 1000, minTTL: 30 * time.Second, maxTTL: 24 * time.Hour, grace: 30 * time.Second}
	w.head.patterns[0] = w.patterns()
	switch w.IntN(4) {
	case 0:
		w.head.active, w.head.learning = 1, 1
		w.head.patterns[0], w.head.patterns[1] = nil, w.head.patterns[0]
	case 1:
		w.head.patterns[1] = w.patterns()
		w.head.learning = 1
	}
	switch w.IntN(6) {
	case 0:
		w.head.limit = 1 + w.IntN(3)
	case 1:
		w.head.minTTL, w.head.maxTTL, w.head.grace = 0, time.Hour, 0
	case 2:
		w.head.minTTL, w.head.maxTTL, w.head.grace = 5*time.Minute, 5*time.Minute, 500*time.Millisecond
	}
	w.names = w.vocabulary.names(append(w.head.patterns[0], w.head.patterns[1]...))
	return w
}

// script writes the next script.
func (w *scripter) script() *script {
	s := w.head
	s.tcp = w.in(30)
	switch n := w.IntN(1000); {
	case n < 500:
		w.conversation(&s)
	case n < 690:
		w.mutations(&s)
	case n < 940:
		w.crowd(&s)
	case n < 955:
		w.cuts(&s)
	case n < 995:
		w.queries(&s)
	default:
		w.large(&s)
	}
	return &s
}

func (s *script) ask(client int, message []byte) {
	s.steps = append(s.steps, step{verb: ask, client: client, message: message})
}

func (s *script) answer(client int, message []byte) {
	s.steps = append(s.steps, step{verb: answer, client: client, message: message})
}

const scriptClients = 4

func (w *scripter) newQuestion() wireQuestion {
	q := wireQuestion{id: uint16(w.IntN(2)) * 4711, name: pick(w.Rand, w.names), kind: pick(w.Rand, []uint16{1, 1, 28, 65, 64, 5, 16, 255}), class: dns.ClassINET}
	if w.in(2) {
		q.class = pick(w.Rand, []uint16{0, 3, 255})
	}
	return q
}

// some answers to a question, as large as a test run takes.
func (w *scripter) reply(q wireQuestion) []byte {
	for {
		message := w.response(q, w.records(q.name, w.names))
		if len(message) <= testRunBytes {
			return message
		}
	}
}

// conversation has one client ask and be answered, again and again: lifetimes are prolonged, the same is
// told once, an answer comes twice.
func (w *scripter) conversation(s *script) {
	client, q := w.IntN(scriptClients), w.newQuestion()
	for range 1 + w.IntN(5) {
		if w.in(15) {
			q = w.newQuestion()
		}
		message := w.reply(q)
		for range 1 + w.IntN(2) {
			s.ask(client, w.query(q))
			for range pick(w.Rand, []int{1, 1, 1, 2}) {
				s.answer(client, message)
			}
		}
	}
}

// mutations has a client ask, and sends it answers of which little was changed.
func (w *scripter) mutations(s *script) {
	client, q := w.IntN(scriptClients), w.newQuestion()
	message := w.reply(q)
	for range 8 {
		if w.in(80) {
			s.ask(client, w.query(q))
		}
		mutated := mutate(w.Rand, message, 16+q.name.bytes())
		s.answer(client, mutated[:min(len(mutated), testRunBytes)])
		if w.in(10) {
			s.steps[len(s.steps)-1].tells = w.IntN(5) - 2
		}
	}
}

// crowd has clients ask and be answered in any order: under one key, with wrong ports, ids and questions,
// late, twice, and unasked.
func (w *scripter) crowd(s *script) {
	var questions []wireQuestion
	for range 1 + w.IntN(4) {
		questions = append(questions, w.newQuestion())
	}
	if w.in(50) { // the same name for another type, as usual
		other := questions[0]
		other.kind = 28
		questions = append(questions, other)
	}
	for range 4 + w.IntN(12) {
		client, q := w.IntN(scriptClients), pick(w.Rand, questions)
		if w.in(70) {
			client = 0
		}
		switch n := w.IntN(100); {
		case n < 40:
			s.ask(client, w.query(q))
		case n < 52:
			s.steps = append(s.steps, step{verb: age, passed: time.Duration(4*(1+w.IntN(3))) * time.Second}) // no sum is near the timeout
		case n < 58:
			q.id += uint16(w.IntN(3))
			fallthrough
		default:
			s.answer(client, w.reply(q))
		}
	}
}

// cuts sends a message cut at every offset, or at many, and then whole.
func (w *scripter) cuts(s *script) {
	client, q := w.IntN(scriptClients), w.newQuestion()
	message := w.reply(q)
	s.ask(client, w.query(q))
	for length := range message {
		if len(message) < 300 || length < 20 || w.IntN(len(message)) < 200 {
			s.answer(client, message[:length])
		}
	}
	s.answer(client, message)
	s.answer(client, message)
}

// queries sends queries of which little was changed, and answers as if they were well-formed.
func (w *scripter) queries(s *script) {
	client, q := w.IntN(scriptClients), w.newQuestion()
	for range 6 {
		query := w.query(q)
		for range w.IntN(20) {
			query = append(query, byte(w.Uint32()))
		}
		switch w.IntN(4) {
		case 0:
			query = query[:w.IntN(len(query)+1)]
		case 1:
			query = mutate(w.Rand, query, 12)
		}
		s.ask(client, query)
		if w.in(10) {
			s.steps[len(s.steps)-1].tells = w.IntN(5) - 2
		}
		s.answer(client, w.reply(q))
	}
}

// large sends messages of up to 65,507 bytes, with more addresses than the limit.
func (w *scripter) large(s *script) {
	const most, mostIPv6 = 65507, 65000
	for range 2 {
		client, q := w.IntN(scriptClients), w.newQuestion()
		limit := most
		if client == scriptClients-1 {
			limit = mostIPv6
		}
		s.ask(client, w.query(q))
		message := w.largeResponse(q, limit)
		s.answer(client, message)
		if w.in(50) {
			s.answer(client, message[:w.IntN(len(message))])
			mutated := mutate(w.Rand, message, w.IntN(len(message)))
			s.answer(client, mutated[:min(len(mutated), limit)])
			s.answer(client, message)
		}
	}
}

func (w *scripter) largeResponse(q wireQuestion, limit int) []byte {
	size := pick(w.Rand, []int{limit, 5000 + w.IntN(limit-5000), 20000})
	records := w.records(q.name, w.names)
	owner := q.name
	if w.in(70) {
		for _, r := range records {
			if r.kind == dns.TypeCNAME && r.target != nil {
				owner = r.target
			}
		}
	}
	kind := w.IntN(3)
	message := writer{vocabulary: w.vocabulary, known: map[string][]int{}}
	message.header(q, 0x8180, 0)
	message.question(q)
	count := 0
	write := func(r wireRecord) bool {
		before := len(message.message)
		message.record(r)
		if len(message.message) > size {
			message.message = message.message[:before]
			return false
		}
		count++
		return true
	}
	front := w.IntN(len(records) + 1)
	for _, r := range records[:front] {
		write(r)
	}
	ttl := w.ttl()
	room := min(size, limit-4000)
	for i := uint32(0); len(message.message) < room; i++ {
		r := wireRecord{owner: owner, class: dns.ClassINET, ttl: ttl}
		switch kind {
		case 0:
			r.kind, r.data = dns.TypeA, binary.BigEndian.AppendUint32(nil, 0x0a000000+i)
		case 1:
			r.kind, r.data = dns.TypeAAAA, append([]byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0}, binary.BigEndian.AppendUint32(nil, i)...)
		default:
			r = w.data(r, w.names)
		}
		if !write(r) {
			break
		}
	}
	for _, r := range records[front:] {
		write(r)
	}
	binary.BigEndian.PutUint16(message.message[6:], uint16(count))
	return message.message
}
