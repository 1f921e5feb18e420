package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"testing"

	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
)

// A reading is what the rules of learning say about a message, whoever asked.
type reading struct {
	early    []bpf.DatapathCounter // the header says so already, whatever was asked
	question string                // its canonical name, type and class; empty: malformed
	counters []bpf.DatapathCounter // one of them counts the message, if its question is outstanding
	chain    []string              // canonical names in wire form, the asked one first
	owners   []owner
	ttl      uint32 // the smallest that counts
	special  uint64 // addresses that are never learned
	over     uint64 // addresses beyond the limit
}

// An owner is an address that the first so many names of the chain have.
type owner struct {
	address netip.Addr
	names   int
}

// What the rules and limits of a message are, beside those of the RFCs.
const (
	oracleHeader   = 12
	oracleChain    = 16
	oraclePointers = 126 // in one name
	oracleQuery    = 512 // bytes of a query that are read
)

// An oracle reads messages as plainly as the rules are written. It shares no code with the programs.
type oracle struct {
	t       testing.TB
	message []byte
}

func only(counters ...bpf.DatapathCounter) []bpf.DatapathCounter { return counters }

// read judges a message, of which `limit` addresses may be learned.
func (o oracle) read(limit int) reading {
	if len(o.message) < oracleHeader {
		return reading{early: only(bpf.DatapathCounterCOUNTER_MALFORMED)}
	}
	flags := binary.BigEndian.Uint16(o.message[2:])
	switch {
	case flags&0x8000 == 0:
		return reading{early: only(bpf.DatapathCounterCOUNTER_NOT_RESPONSE)}
	case flags&0x7800 != 0:
		return reading{early: only(bpf.DatapathCounterCOUNTER_OPCODE)}
	case binary.BigEndian.Uint16(o.message[4:]) != 1:
		return reading{early: only(bpf.DatapathCounterCOUNTER_QUESTION_COUNT)}
	}
	name, end := o.name(oracleHeader)
	if end == 0 || end+4 > len(o.message) {
		return reading{counters: only(bpf.DatapathCounterCOUNTER_MALFORMED)}
	}
	question := name + string(o.message[end:end+4])
	var r reading
	switch {
	case flags&0x0200 != 0:
		r.counters = only(bpf.DatapathCounterCOUNTER_TRUNCATED)
	case flags&0x000f != 0:
		r.counters = only(bpf.DatapathCounterCOUNTER_RCODE)
	case binary.BigEndian.Uint16(o.message[end+2:]) != dns.ClassINET:
		r.counters = only(bpf.DatapathCounterCOUNTER_CLASS)
	default:
		r = o.answers(name, end+4, limit)
	}
	r.question = question
	return r
}

// asked gives what a query asks for; empty if it asks for nothing that is remembered.
func (o oracle) asked() string {
	o.message = o.message[:min(len(o.message), oracleQuery)]
	if len(o.message) < oracleHeader || o.message[2]&0x80 != 0 || binary.BigEndian.Uint16(o.message[4:]) != 1 {
		return ""
	}
	name, end := o.name(oracleHeader)
	if end == 0 || end+4 > len(o.message) {
		return ""
	}
	return name + string(o.message[end:end+4])
}

type record struct {
	owner  string
	target string // of a CNAME
	ttl    uint32
	ips    []netip.Addr
}

func (o oracle) answers(asked string, at, limit int) reading {
	var records []record
	malformed := false
	for range binary.BigEndian.Uint16(o.message[6:]) {
		record, next := o.record(at)
		if next == 0 {
			malformed = true
			break
		}
		records, at = append(records, record), next
	}
	chain, fault := follow(asked, records)
	malformed = malformed || fault
	switch {
	case malformed && aliases(records) >= oracleChain: // either fault may be met first
		return reading{counters: only(bpf.DatapathCounterCOUNTER_MALFORMED, bpf.DatapathCounterCOUNTER_CHAIN_TOO_LONG)}
	case malformed:
		return reading{counters: only(bpf.DatapathCounterCOUNTER_MALFORMED)}
	case len(chain) > oracleChain:
		return reading{counters: only(bpf.DatapathCounterCOUNTER_CHAIN_TOO_LONG)}
	}
	return outcome(chain, records, limit)
}

// follow gives the chain from the asked name, as far as it may be walked, and whether it has a fault.
func follow(asked string, records []record) (chain []string, fault bool) {
	chain = []string{asked}
	for at := 0; at < len(chain); at++ {
		target := ""
		for _, record := range records {
			if record.owner != chain[at] || record.target == "" {
				continue
			}
			fault = fault || target != "" && target != record.target
			target = record.target
		}
		if target == "" {
			break
		}
		if slices.Contains(chain, target) {
			fault = true
			break
		}
		chain = append(chain, target)
	}
	return chain, fault
}

func aliases(records []record) (count int) {
	for _, record := range records {
		if record.target != "" {
			count++
		}
	}
	return count
}

func outcome(chain []string, records []record, limit int) reading {
	r := reading{counters: only(bpf.DatapathCounterCOUNTER_NO_ADDRESS), ttl: 1<<31 - 1}
	for _, record := range records {
		place := slices.Index(chain, record.owner)
		if place < 0 {
			continue
		}
		counts := record.target != ""
		for _, ip := range record.ips {
			switch {
			case special(ip):
				r.special++
			case len(r.owners) == limit:
				r.over++
			default:
				r.owners = append(r.owners, owner{ip.Unmap(), place + 1})
				counts = true
			}
		}
		if counts && record.ttl >= 1<<31 {
			r.ttl = 0
		} else if counts {
			r.ttl = min(r.ttl, record.ttl)
		}
	}
	if len(r.owners) > 0 {
		r.chain = chain
		r.counters = only(bpf.DatapathCounterCOUNTER_LEARNED, bpf.DatapathCounterCOUNTER_UNMATCHED)
	}
	return r
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
	found := record{owner: owner, ttl: binary.BigEndian.Uint32(head[4:])}
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

// name reads a name and gives its canonical wire form; end is 0 if it is malformed. miekg/dns must read
// the same name wherever the rules, which are stricter, accept it.
func (o oracle) name(at int) (string, int) {
	start, piece, end, pointers := at, at, 0, 0
	var wire []byte
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
			return string(append(wire, 0)), end
		case length >= 0xc0:
			if at+1 >= len(o.message) {
				return "", 0
			}
			target := length&0x3f<<8 | int(o.message[at+1])
			if pointers++; target < oracleHeader || target >= piece || pointers > oraclePointers {
				return "", 0
			}
			if end == 0 {
				end = at + 2
			}
			at, piece = target, target
		case length > 63 || at+1+length > len(o.message) || len(wire)+1+length+1 > 255:
			return "", 0
		default:
			wire = append(wire, byte(length))
			for _, b := range o.message[at+1 : at+1+length] {
				if 'A' <= b && b <= 'Z' {
					b += 'a' - 'A'
				}
				wire = append(wire, b)
			}
			at += 1 + length
		}
	}
}

var specialPrefixes = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/128"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

func special(address netip.Addr) bool {
	return address.Is4In6() || slices.ContainsFunc(specialPrefixes, func(p netip.Prefix) bool { return p.Contains(address) })
}
