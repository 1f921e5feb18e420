package bpf_test

import (
	"math/rand/v2"
	"net/netip"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// segments runs the programs on the segments of a connection of each client, split anywhere, some of them
// sent again.
type segments struct {
	testRuns
	random          *rand.Rand
	first           uint32         // sequence number of the connection that was opened last
	asked, answered map[int]uint32 // sequence numbers of what comes next, by client
}

func newSegments(d *bpftest.Datapath, from []netip.AddrPort) *segments {
	for _, four := range []bool{true, false} {
		d.Put(d.Endpoints, endpoint(testResolver(four), bpftest.TCP), bpf.DatapathEndpointFlagENDPOINT_RESOLVER)
	}
	return &segments{testRuns: testRuns{d, from}}
}

// begin closes all connections: the next message of each client opens another one.
func (s *segments) begin() {
	s.random = rand.New(rand.NewPCG(1, 2)) // the same for each script
	s.asked, s.answered = map[int]uint32{}, map[int]uint32{}
}

// connect opens the connection of a client, unless it is open.
func (s *segments) connect(client int) (from, to netip.AddrPort) {
	from = s.from[client]
	to = testResolver(from.Addr().Is4())
	if _, open := s.asked[client]; !open {
		s.first += 1<<30 + 12345 // that of one before would be a SYN sent again
		s.asked[client], s.answered[client] = s.first, s.first+1<<29
		s.datapath.Run(s.program(client), bpftest.Segment(from, to, s.asked[client]-1, bpftest.SYN, nil))
		s.datapath.Run(s.datapath.DnsResponse, bpftest.Segment(to, from, s.answered[client]-1, bpftest.SYN|bpftest.ACK, nil))
	}
	return from, to
}

func (s *segments) ask(client int, message []byte, _ int) (verdict uint32) {
	from, to := s.connect(client)
	sequence := s.asked[client]
	s.asked[client] = s.send(message, sequence, func(at uint32, piece []byte) {
		verdict |= s.datapath.Run(s.program(client), bpftest.Segment(from, to, at, bpftest.ACK, piece))
	})
	return verdict
}

func (s *segments) answer(client int, message []byte, _ int) (verdict uint32) {
	to, from := s.connect(client)
	sequence := s.answered[client]
	s.answered[client] = s.send(message, sequence, func(at uint32, piece []byte) {
		verdict |= s.datapath.Run(s.datapath.DnsResponse, bpftest.Segment(from, to, at, bpftest.ACK, piece))
	})
	return verdict
}

// send gives the pieces of a message with its length before it, and the sequence number behind it.
func (s *segments) send(message []byte, sequence uint32, piece func(at uint32, bytes []byte)) uint32 {
	left := framed(message)
	for len(left) > 0 {
		size := min(len(left), 1+s.random.IntN(testRunBytes))
		if s.random.IntN(3) > 0 {
			size = min(len(left), testRunBytes)
		}
		for range 1 + s.random.IntN(5)/4 {
			piece(sequence, left[:size])
		}
		sequence, left = sequence+uint32(size), left[size:]
	}
	return sequence
}
