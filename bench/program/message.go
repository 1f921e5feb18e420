package program

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/miekg/dns"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// A lookup is a question and its answer, as packets.
type lookup struct {
	query, response []byte
}

// newLookup makes the packets of the number-th question of a client, for a name's A records.
func newLookup(client netip.Addr, number int, name string, answer ...dns.RR) (lookup, error) {
	from := netip.AddrPortFrom(client, uint16(20_000+number%40_000)) //nolint:gosec // below 65,536
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeA)
	question.Id = uint16(number) //nolint:gosec // an id, which may come again
	asked, err := question.Pack()
	if err != nil {
		return lookup{}, fmt.Errorf("pack question for %s: %w", name, err)
	}
	reply := new(dns.Msg).SetReply(question)
	reply.Compress = true
	reply.Answer = answer
	answered, err := reply.Pack()
	if err != nil {
		return lookup{}, fmt.Errorf("pack answer for %s: %w", name, err)
	}
	return lookup{bpftest.Datagram(from, resolver, asked), bpftest.Datagram(resolver, from, answered)}, nil
}

// records makes A records of a name, with consecutive addresses.
func records(name string, first netip.Addr, count int) (answer []dns.RR) {
	for range count {
		answer = append(answer, &dns.A{
			Hdr: dns.RR_Header{Name: dns.Fqdn(name), Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300}, A: first.AsSlice(),
		})
		first = first.Next()
	}
	return answer
}

// setAddress changes the address of the last record, which is the end of the packet.
func (l lookup) setAddress(address netip.Addr) {
	bytes := address.As4()
	copy(l.response[len(l.response)-4:], bytes[:])
}

// plus is the number-th address after one.
func plus(address netip.Addr, number int) netip.Addr {
	bytes := address.As4()
	binary.BigEndian.PutUint32(bytes[:], binary.BigEndian.Uint32(bytes[:])+uint32(number)) //nolint:gosec // within a network
	return netip.AddrFrom4(bytes)
}

// ask has the node remember the question.
func (n *node) ask(l lookup) error { return run(n.query, l.query) }

// resolve has the node see the question and the answer, and counts the answer as given.
func (n *node) resolve(l lookup, as bpf.DatapathCounter) error {
	before, err := n.counted(as)
	if err != nil {
		return err
	}
	if err := n.ask(l); err != nil {
		return err
	}
	if err := run(n.response, l.response); err != nil {
		return err
	}
	after, err := n.counted(as)
	if err == nil && after != before+1 {
		err = fmt.Errorf("a response was not counted as %d", as)
	}
	return err
}

// run runs a program once on a packet, which it is to let pass.
func run(program *ebpf.Program, packet []byte) error {
	verdict, err := program.Run(&ebpf.RunOptions{Data: packet, Repeat: 1})
	if err != nil {
		return fmt.Errorf("run %v on %d bytes: %w", program, len(packet), err)
	}
	if verdict != 0 {
		return fmt.Errorf("run %v: it gave %d", program, verdict)
	}
	return nil
}
