package bpf_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf/bpftest"
)

// testRunBytes is more than a message may have for BPF_PROG_TEST_RUN, which takes no more than a page.
const testRunBytes = 3000

// testRuns runs the programs on packets of UDP, over either family.
type testRuns struct {
	datapath *bpftest.Datapath
	from     []netip.AddrPort
}

func newTestRuns(t testing.TB, d *bpftest.Datapath) *testRuns {
	t.Helper()
	r := &testRuns{datapath: d, from: []netip.AddrPort{
		netip.MustParseAddrPort("10.1.0.7:40000"), netip.MustParseAddrPort("10.1.0.7:40001"),
		netip.MustParseAddrPort("10.1.0.8:40000"), netip.MustParseAddrPort("[fd01::7]:40000"),
	}}
	trust(d, testResolver(true), testResolver(false))
	return r
}

// testResolver is the trusted resolver of a family.
func testResolver(four bool) netip.AddrPort {
	if four {
		return netip.MustParseAddrPort("10.0.0.53:53")
	}
	return netip.MustParseAddrPort("[fd00::53]:53")
}

func (r *testRuns) clients() []netip.AddrPort { return r.from }

func (r *testRuns) ask(client int, message []byte, tells int) uint32 {
	from := r.from[client]
	return r.run(r.program(client), from, testResolver(from.Addr().Is4()), message, tells)
}

// program is that of a client's queries: every other client is the node itself.
func (r *testRuns) program(client int) *ebpf.Program {
	if client%2 == 1 {
		return r.datapath.DnsQueryLocal
	}
	return r.datapath.DnsQueryForwarded
}

func (r *testRuns) answer(client int, message []byte, tells int) uint32 {
	to := r.from[client]
	return r.run(r.datapath.DnsResponse, testResolver(to.Addr().Is4()), to, message, tells)
}

func (r *testRuns) run(program *ebpf.Program, from, to netip.AddrPort, message []byte, tells int) uint32 {
	packet := bpftest.Datagram(from, to, message)
	told := packet[len(packet)-len(message)-4:]
	binary.BigEndian.PutUint16(told, uint16(int(binary.BigEndian.Uint16(told))+tells))
	return r.datapath.Run(program, packet)
}

// loopback sends responses of any size over the loopback device of a namespace, where the program is the
// filter of packet sockets, which see what xt_bpf shows: the packet from the IP header on.
type loopback struct {
	testRuns
	t         testing.TB
	taps      []int // packet sockets: a packet that one receives is one that the program let through
	resolvers map[bool]*net.UDPConn
	counted   func() uint64
}

// newLoopback makes the namespace; counted is how many responses the program has seen.
func newLoopback(t testing.TB, d *bpftest.Datapath, counted func() uint64) *loopback {
	t.Helper()
	l := &loopback{t: t, counted: counted, resolvers: map[bool]*net.UDPConn{}}
	l.datapath = d
	l.from = []netip.AddrPort{
		netip.MustParseAddrPort("127.0.0.1:40000"), netip.MustParseAddrPort("127.0.0.1:40001"),
		netip.MustParseAddrPort("127.0.0.2:40000"), netip.MustParseAddrPort("[::1]:40000"),
	}
	done := make(chan struct{})
	go func() { // sockets stay in the namespace; its thread ends with this goroutine
		defer close(done)
		runtime.LockOSThread()
		loopbackNamespace(t)
		l.taps = []int{filter(t, d.DnsResponse, unix.ETH_P_IP), filter(t, d.DnsResponse, unix.ETH_P_IPV6)}
		for _, client := range l.from {
			listenOn(t, client) // that nobody is told of closed ports
		}
		l.resolvers[true] = listenOn(t, netip.MustParseAddrPort("127.0.0.53:5353"))
		l.resolvers[false] = listenOn(t, netip.MustParseAddrPort("[::1]:5353"))
	}()
	<-done
	if l.resolvers[false] == nil {
		t.Fatal("no loopback to send over")
	}
	return l
}

func listenOn(t testing.TB, address netip.AddrPort) *net.UDPConn {
	t.Helper()
	connection, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// answer sends the message itself: the kernel tells the true size.
func (l *loopback) answer(client int, message []byte, _ int) uint32 {
	seen := l.counted()
	to := l.from[client]
	if _, err := l.resolvers[to.Addr().Is4()].WriteToUDPAddrPort(message, to); err != nil {
		l.t.Fatalf("send %d bytes: %v", len(message), err)
	}
	for deadline := time.Now().Add(10 * time.Second); l.counted() == seen; runtime.Gosched() {
		if time.Now().After(deadline) {
			l.t.Fatalf("a response of %d bytes was not seen", len(message))
		}
	}
	for _, tap := range l.taps {
		if _, _, err := unix.Recvfrom(tap, make([]byte, 1), unix.MSG_DONTWAIT); err != unix.EAGAIN {
			return 1
		}
	}
	return 0
}
