package bpf_test

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/miekg/dns"
)

// A writer writes a message with names compressed in any way that a server may.
type writer struct {
	*vocabulary
	message []byte
	known   map[string][]int // where names begin in the message, by key
}

func (w *writer) u16(n int) { w.message = binary.BigEndian.AppendUint16(w.message, uint16(n)) }

func (w *writer) u32(n uint32) { w.message = binary.BigEndian.AppendUint32(w.message, n) }

// name writes a name, in any case. Compression says how often in a hundred a pointer stands for the rest.
func (w *writer) name(name wireName, compression int) {
	keys := name.key()
	for i := range len(name) + 1 {
		at := len(w.message)
		if i == len(name) {
			w.message = append(w.message, 0)
			return
		}
		if places := w.known[keys]; len(places) > 0 && w.in(compression) {
			w.u16(0xc000 | pick(w.Rand, places))
			if at < 1<<14 && w.in(20) { // a pointer to this pointer is one too
				w.known[keys] = append(places, at)
			}
			return
		}
		if at < 1<<14 {
			w.known[keys] = append(w.known[keys], at)
		}
		keys = keys[1+len(name[i]):]
		w.message = append(w.message, byte(len(name[i])))
		for _, b := range name[i] {
			if 'a' <= b && b <= 'z' && w.in(10) {
				b -= 'a' - 'A'
			}
			w.message = append(w.message, b)
		}
	}
}

// A wireRecord is a record before it is written.
type wireRecord struct {
	owner  wireName
	kind   uint16
	class  uint16
	ttl    uint32
	target wireName // of a CNAME
	data   []byte   // of others
}

func (w *writer) record(r wireRecord) {
	w.name(r.owner, 80)
	w.u16(int(r.kind))
	w.u16(int(r.class))
	w.u32(r.ttl)
	w.u16(0)
	begin := len(w.message)
	if r.kind == dns.TypeCNAME && r.data == nil {
		w.name(r.target, 70)
	} else {
		w.message = append(w.message, r.data...)
	}
	binary.BigEndian.PutUint16(w.message[begin-2:], uint16(len(w.message)-begin))
}

// A wireQuestion is what a message asks.
type wireQuestion struct {
	id    uint16
	name  wireName
	kind  uint16
	class uint16
}

func (v *vocabulary) query(q wireQuestion) []byte {
	w := writer{vocabulary: v, known: map[string][]int{}}
	w.header(q, 0x0100, 0)
	w.question(q)
	return w.message
}

func (w *writer) header(q wireQuestion, flags, answers int) {
	for _, n := range []int{int(q.id), flags, 1, answers, 0, 0} {
		w.u16(n)
	}
}

func (w *writer) question(q wireQuestion) {
	w.name(q.name, 0)
	w.u16(int(q.kind))
	w.u16(int(q.class))
}

// response writes a message that answers a question, well-formed for the most part.
func (v *vocabulary) response(q wireQuestion, records []wireRecord) []byte {
	w := writer{vocabulary: v, known: map[string][]int{}}
	flags := 0x8180
	switch v.IntN(40) {
	case 0:
		flags = int(v.Uint32() & 0xffff)
	case 1, 2:
		flags |= 1 << v.IntN(16)
	}
	count := len(records)
	if v.in(4) {
		count = max(0, count+v.IntN(5)-2)
	}
	w.header(q, flags, count)
	w.question(q)
	for _, r := range records {
		w.record(r)
	}
	switch v.IntN(6) {
	case 0: // further sections, which nobody reads
		w.message[9] = 1
		w.record(wireRecord{owner: q.name, kind: dns.TypeA, class: dns.ClassINET, data: v.address4()})
	case 1:
		for range v.IntN(40) {
			w.message = append(w.message, byte(v.Uint32()))
		}
	}
	return w.message
}

func (v *vocabulary) ttl() uint32 {
	return pick(v.Rand, []uint32{0, 1, 29, 30, 31, 60, 60, 300, 300, 3600, 86399, 86400, 86401, 1<<31 - 1, 1 << 31, 1<<32 - 1, v.Uint32()})
}

func (v *vocabulary) address4() []byte {
	return pick(v.Rand, [][]byte{
		{192, 0, 2, byte(v.IntN(8))},
		{192, 0, 2, byte(v.IntN(8))},
		{10, 0, 0, byte(v.Uint32())},
		{byte(v.Uint32()), byte(v.Uint32()), 0, 1},
		{0, 1, 2, 3},
		{1, 0, 0, 0},
		{126, 255, 255, 255},
		{127, 0, 0, 1},
		{128, 0, 0, 0},
		{169, 254, 169, 254},
		{169, 253, 255, 255},
		{223, 255, 255, 255},
		{224, 0, 0, 1},
		{239, 255, 255, 255},
		{240, 0, 0, 1},
		{255, 255, 255, 255},
		{255, 255, 255, 254},
	})
}

func (v *vocabulary) address6() []byte {
	address := make([]byte, 16)
	switch v.IntN(10) {
	case 0: // ::0, ::1, ::2
		address[15] = byte(v.IntN(3))
	case 1: // mapped, or nearly
		address[10], address[11], address[12], address[15] = 0xff, byte(0xff-v.IntN(2)), 192, 1
	case 2: // link-local, or nearly
		address[0], address[1], address[15] = 0xfe, byte(0x7f+v.IntN(3)), 1
	case 3:
		address[0], address[1] = byte(0xfd+v.IntN(3)), byte(v.Uint32())
	case 4:
		for i := range address {
			address[i] = byte(v.Uint32())
		}
	default:
		copy(address, []byte{0x20, 0x01, 0x0d, 0xb8})
		address[15] = byte(v.IntN(8))
	}
	return address
}

// binding gives the data of an SVCB or HTTPS record, with faults now and then.
func (v *vocabulary) binding(target wireName) []byte {
	data := binary.BigEndian.AppendUint16(nil, pick(v.Rand, []uint16{0, 1, 1, 1, 2, 65535}))
	data = append(data, target.wire()...)
	keys := []uint16{}
	for _, key := range []uint16{0, 1, 3, 4, 5, 6, 7, 65280, 65535} {
		if v.in(35) {
			keys = append(keys, key)
		}
	}
	if v.in(5) {
		v.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	}
	for _, key := range keys {
		var value []byte
		for range 1 + v.IntN(3) {
			switch key {
			case 4:
				value = append(value, v.address4()...)
			case 6:
				value = append(value, v.address6()...)
			default:
				value = append(value, byte(v.Uint32()), byte(v.Uint32()))
			}
		}
		if v.in(4) {
			value = value[:v.IntN(len(value))]
		}
		length := len(value)
		if v.in(2) {
			length += v.IntN(5) - 2
		}
		data = binary.BigEndian.AppendUint16(data, key)
		data = binary.BigEndian.AppendUint16(data, uint16(length))
		data = append(data, value...)
	}
	if v.in(2) {
		data = data[:v.IntN(len(data)+1)]
	}
	return data
}

// data gives a record its type and data.
func (v *vocabulary) data(r wireRecord, names []wireName) wireRecord {
	switch v.IntN(10) {
	case 0, 1, 2:
		r.kind, r.data = dns.TypeA, v.address4()
	case 3, 4:
		r.kind, r.data = dns.TypeAAAA, v.address6()
	case 5, 6:
		r.kind, r.data = pick(v.Rand, []uint16{dns.TypeSVCB, dns.TypeHTTPS}), v.binding(v.name(names))
	case 7: // of any type
		r.kind, r.data = pick(v.Rand, []uint16{0, 2, 6, 12, 15, 16, 39, 41, 46, 99, 255, 257, 65535}), make([]byte, v.IntN(40))
	default:
		r.kind, r.data = dns.TypeA, v.address4()
	}
	if v.in(2) { // of another length
		r.data = append(r.data, 0)[:v.IntN(len(r.data)+2)]
	}
	return r
}

// records gives what a server may say about a name, and more: a chain, addresses on and off it, in any order.
func (v *vocabulary) records(asked wireName, names []wireName) []wireRecord {
	head := func(owner wireName) wireRecord {
		r := wireRecord{owner: owner, class: dns.ClassINET, ttl: v.ttl()}
		if v.in(3) {
			r.class = pick(v.Rand, []uint16{0, 3, 4, 254, 255})
		}
		return r
	}
	chain, order := []wireName{asked}, v.Perm(len(names))
	for _, i := range order[:min(len(order), pick(v.Rand, []int{0, 0, 0, 0, 1, 1, 2, 3, 3, 4 + v.IntN(12), 15, 16}))] {
		if v.in(2) {
			i = 0
		}
		switch {
		case v.in(1):
			chain = append(chain, v.lengthy(253+v.IntN(5)))
		case names[i].key() != asked.key() || v.in(5):
			chain = append(chain, names[i])
		}
	}
	var records []wireRecord
	for i, target := range chain[1:] {
		r := head(chain[i])
		r.kind, r.target = dns.TypeCNAME, target
		records = append(records, r)
		if v.in(4) { // said twice
			records = append(records, r)
		}
	}
	for range v.IntN(7) {
		owner := pick(v.Rand, chain)
		switch {
		case v.in(50):
			owner = chain[len(chain)-1]
		case v.in(20):
			owner = v.name(names)
		}
		records = append(records, v.data(head(owner), names))
	}
	for range pick(v.Rand, []int{0, 0, 0, 0, 0, 1, 2, 4}) { // any edge of the graph
		r := head(v.name(names))
		r.kind, r.target = dns.TypeCNAME, v.name(names)
		records = append(records, r)
	}
	switch v.IntN(5) {
	case 0, 1:
		v.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
	case 2:
		slices.Reverse(records)
	}
	return records
}

// mutate changes a message in a few places, mostly behind the question.
func mutate(random *rand.Rand, message []byte, question int) []byte {
	message = slices.Clone(message)
	for range 1 + random.IntN(3) {
		from := min(question, len(message)-1)
		if random.IntN(10) == 0 {
			from = 2
		}
		at := from + random.IntN(max(1, len(message)-from))
		if at+2 > len(message) {
			continue
		}
		switch random.IntN(8) {
		case 0:
			message[at] ^= 1 << random.IntN(8)
		case 1:
			message[at] = byte(random.Uint32())
		case 2:
			message = message[:at]
		case 3: // a pointer
			to := random.IntN(len(message) + 4)
			if random.IntN(4) == 0 {
				to = 9 + random.IntN(5)
			}
			binary.BigEndian.PutUint16(message[at:], 0xc000|uint16(to))
		case 4: // a record's type, a length, a count
			binary.BigEndian.PutUint16(message[at:], []uint16{0, 1, 2, 3, 4, 5, 6, 16, 28, 64, 65}[random.IntN(11)])
		case 5: // a piece twice
			end := at + random.IntN(len(message)-at)
			message = slices.Insert(message, at, slices.Clone(message[at:end])...)
		case 6: // a piece away
			message = slices.Delete(message, at, at+random.IntN(len(message)-at))
		case 7: // more or fewer records
			message[7] = byte(random.IntN(8))
		}
		if len(message) <= max(from+2, 8) {
			return message
		}
	}
	return message
}
