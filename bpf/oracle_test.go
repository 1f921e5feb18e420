package bpf_test

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// An expectation is what the rules of learning say about a message that answers a known query.
type expectation struct {
	counters []bpf.DatapathCounter // one of them counts the message
	chain    []string
	owners   []bpftest.Owner
}

// An oracle reads messages as plainly as the rules are written. It shares no code with the programs.
type oracle struct {
	t       testing.TB
	message []byte
}

// expect judges a message against the outstanding question.
func expect(t testing.TB, message, query []byte) expectation {
	t.Helper()
	o := oracle{t, message}
	reason := func(counters ...bpf.DatapathCounter) expectation { return expectation{counters: counters} }
	if len(message) < 12 {
		return reason(bpf.DatapathCounterCOUNTER_MALFORMED)
	}
	flags := binary.BigEndian.Uint16(message[2:])
	switch {
	case flags&0x8000 == 0:
		return reason(bpf.DatapathCounterCOUNTER_NOT_RESPONSE)
	case flags&0x7800 != 0:
		return reason(bpf.DatapathCounterCOUNTER_OPCODE)
	case binary.BigEndian.Uint16(message[4:]) != 1:
		return reason(bpf.DatapathCounterCOUNTER_QUESTION_COUNT)
	case !bytes.Equal(message[:2], query[:2]):
		return reason(bpf.DatapathCounterCOUNTER_NO_QUERY)
	}
	name, end := o.name(12)
	if end == 0 || end+4 > len(message) {
		return reason(bpf.DatapathCounterCOUNTER_MALFORMED)
	}
	asked, askedEnd := oracle{t, query}.name(12)
	switch {
	case name != asked || !bytes.Equal(message[end:end+4], query[askedEnd:askedEnd+4]):
		return reason(bpf.DatapathCounterCOUNTER_WRONG_QUESTION)
	case flags&0x0200 != 0:
		return reason(bpf.DatapathCounterCOUNTER_TRUNCATED)
	case flags&0x000f != 0:
		return reason(bpf.DatapathCounterCOUNTER_RCODE)
	}
	return o.answers(name, end+4)
}

type record struct {
	owner  string
	target string // of a CNAME
	ips    []netip.Addr
}

func (o oracle) answers(asked string, at int) expectation {
	malformed := expectation{counters: []bpf.DatapathCounter{bpf.DatapathCounterCOUNTER_MALFORMED}}
	var records []record
	for range binary.BigEndian.Uint16(o.message[6:]) {
		record, next := o.record(at)
		if next == 0 {
			return malformed
		}
		records, at = append(records, record), next
	}
	chain := []string{asked}
	places := map[string]int{asked: 0}
	for at := 0; at < len(chain); at++ {
		target := ""
		for _, record := range records {
			if record.owner != chain[at] || record.target == "" {
				continue
			}
			if target != "" && target != record.target {
				return malformed
			}
			target = record.target
		}
		if target == "" {
			break
		}
		if _, circle := places[target]; circle {
			return malformed
		}
		places[target] = len(chain)
		chain = append(chain, target)
	}
	if len(chain) > 16 {
		malformed.counters = append(malformed.counters, bpf.DatapathCounterCOUNTER_CHAIN_TOO_LONG)
		return malformed
	}
	return o.outcome(chain, places, records)
}

func (o oracle) outcome(chain []string, places map[string]int, records []record) expectation {
	expected := expectation{counters: []bpf.DatapathCounter{bpf.DatapathCounterCOUNTER_NO_ADDRESS}}
	for _, record := range records {
		place, known := places[record.owner]
		for _, ip := range record.ips {
			if known && !special(ip) {
				expected.owners = append(expected.owners, bpftest.Owner{Address: ip.Unmap(), Names: uint32(place + 1)})
			}
		}
	}
	if len(expected.owners) == 0 {
		return expected
	}
	expected.chain = chain
	expected.counters[0] = bpf.DatapathCounterCOUNTER_UNMATCHED
	for _, name := range chain {
		if matchSet(name) != 0 {
			expected.counters[0] = bpf.DatapathCounterCOUNTER_LEARNED
		}
	}
	return expected
}

// record reads one record; its end is 0 if it is malformed.
func (o oracle) record(at int) (record, int) {
	owner, at := o.name(at)
	if at == 0 || at+10 > len(o.message) {
		return record{}, 0
	}
	head := o.message[at : at+10]
	length := int(binary.BigEndian.Uint16(head[8:]))
	data, end := at+10, at+10+length
	if end > len(o.message) {
		return record{}, 0
	}
	found := record{owner: owner}
	if binary.BigEndian.Uint16(head[2:]) != dns.ClassINET {
		return found, end
	}
	switch binary.BigEndian.Uint16(head) {
	case dns.TypeA, dns.TypeAAAA:
		wanted := map[uint16]int{dns.TypeA: 4, dns.TypeAAAA: 16}[binary.BigEndian.Uint16(head)]
		if length != wanted {
			return record{}, 0
		}
		ip, _ := netip.AddrFromSlice(o.message[data:end])
		found.ips = []netip.Addr{ip}
	case dns.TypeCNAME:
		target, targetEnd := o.name(data)
		if targetEnd != end {
			return record{}, 0
		}
		found.target = target
	case dns.TypeSVCB, dns.TypeHTTPS:
		hints, ok := service(o.message[data:end])
		if !ok {
			return record{}, 0
		}
		found.ips = hints
	}
	return found, end
}

// service reads the data of an SVCB or HTTPS record as RFC 9460, 2.2, has it.
func service(data []byte) (hints []netip.Addr, ok bool) {
	if len(data) < 3 {
		return nil, false
	}
	priority, name := binary.BigEndian.Uint16(data), 2
	for data[name] != 0 {
		if data[name] > 63 || name+1+int(data[name]) >= len(data) {
			return nil, false
		}
		name += 1 + int(data[name])
	}
	if name+1-2 > 255 {
		return nil, false
	}
	if priority == 0 {
		return nil, true
	}
	last := -1
	for params := data[name+1:]; len(params) > 0; {
		if len(params) < 4 || int(binary.BigEndian.Uint16(params)) <= last {
			return nil, false
		}
		last = int(binary.BigEndian.Uint16(params))
		length := int(binary.BigEndian.Uint16(params[2:]))
		if 4+length > len(params) {
			return nil, false
		}
		value, size := params[4:4+length], map[int]int{4: 4, 6: 16}[last]
		params = params[4+length:]
		if size == 0 {
			continue
		}
		if len(value) == 0 || len(value)%size != 0 {
			return nil, false
		}
		for address := range slices.Chunk(value, size) {
			ip, _ := netip.AddrFromSlice(address)
			hints = append(hints, ip)
		}
	}
	return hints, true
}

// name reads a name, whose text is labels of any bytes with a dot behind each; end is 0 if it is
// malformed. miekg/dns must read the same name wherever the rules, which are stricter, accept it.
func (o oracle) name(at int) (string, int) {
	start, piece, end, wire := at, at, 0, 1
	var text strings.Builder
	for {
		if at >= len(o.message) {
			return "", 0
		}
		length := int(o.message[at])
		switch {
		case length == 0:
			if end == 0 {
				end = at + 1
			}
			if _, theirs, err := dns.UnpackDomainName(o.message, start); err != nil || theirs != end {
				o.t.Errorf("name at %d of %x: miekg/dns says end %d, %v; the rules say %d", start, o.message, theirs, err, end)
			}
			if text.Len() == 0 {
				return ".", end // the root is a name too
			}
			return text.String(), end
		case length >= 0xc0:
			if at+1 >= len(o.message) {
				return "", 0
			}
			target := length&0x3f<<8 | int(o.message[at+1])
			if target < 12 || target >= piece {
				return "", 0
			}
			if end == 0 {
				end = at + 2
			}
			at, piece = target, target
		case length > 63 || at+1+length > len(o.message) || wire+1+length > 255:
			return "", 0
		default:
			for _, b := range o.message[at+1 : at+1+length] {
				if 'A' <= b && b <= 'Z' {
					b += 'a' - 'A'
				}
				text.WriteByte(b)
			}
			text.WriteByte('.')
			wire += 1 + length
			at += 1 + length
		}
	}
}

func special(address netip.Addr) bool {
	for _, prefix := range []string{
		"0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32",
		"::/128", "::1/128", "fe80::/10", "ff00::/8",
	} {
		if netip.MustParsePrefix(prefix).Contains(address) {
			return true
		}
	}
	return address.Is4In6()
}

// matchSet is what the exchange's patterns say about a name.
func matchSet(name string) uint32 {
	if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" {
		return 0
	}
	for _, b := range []byte(name) {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-_.", rune(b)) {
			return 0
		}
	}
	switch {
	case name == "api.example.com.":
		return apiSet
	case name == "example.com.":
		return apexSet
	case strings.HasSuffix(name, ".example.com."):
		return belowSet
	case strings.HasSuffix(name, ".cdn.test."):
		return cdnSet
	}
	return 0
}
