package bpf_test

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bpf"
)

// BPF_PROG_TEST_RUN takes no more than a page. Larger messages go over loopback, with the program as
// the filter of a packet socket, which sees what xt_bpf shows: the packet from the IP header on.
func TestLargeResponse(t *testing.T) {
	e := newExchange(t)
	loopbackNamespace(t)
	filter(t, e.DnsResponse, unix.ETH_P_IP)

	const addresses = 1001 // one more than the limit
	client, resolver := listen(t), listen(t)
	e.client, e.resolver = client.LocalAddr().(*net.UDPAddr).AddrPort(), resolver.LocalAddr().(*net.UDPAddr).AddrPort()
	e.trust(e.resolver)
	answer := reply(t, e.ask("api.example.com", dns.TypeAAAA))
	address := netip.MustParseAddr("2001:db8::1")
	for range addresses {
		header := dns.RR_Header{Name: "api.example.com.", Rrtype: dns.TypeAAAA, Class: dns.ClassINET, Ttl: 60}
		answer.Answer = append(answer.Answer, &dns.AAAA{Hdr: header, AAAA: address.AsSlice()})
		address = address.Next()
	}
	e.ResetCounters()
	if _, err := resolver.WriteToUDPAddrPort(pack(t, answer), e.client); err != nil {
		t.Fatalf("send the answer: %v", err)
	}
	event := e.WaitAnswer()
	if len(event.Owners) != addresses-1 || event.Chain[0] != "api.example.com" {
		t.Errorf("%d addresses of %v, want %d", len(event.Owners), event.Chain, addresses-1)
	}
	for _, owner := range event.Owners {
		if _, known := e.Learned(owner.Address)[apiSet]; !known {
			t.Fatalf("%v is in the event, but was not learned", owner.Address)
		}
	}
	if got := e.Counter(bpf.DatapathCounterCOUNTER_ADDRESSES_OVER_LIMIT); got != 1 {
		t.Errorf("%d addresses over the limit, want 1", got)
	}
}

// 30 records go into one page, so that the test run shows what a usual large answer does.
func TestThirtyRecords(t *testing.T) {
	e := newExchange(t)
	var records []string
	for i := range 30 {
		records = append(records, fmt.Sprintf("api.example.com. 60 IN A 192.0.2.%d", i+1))
	}
	if got := e.resolve("api.example.com", records...); got[bpf.DatapathCounterCOUNTER_MAPPING_CREATED] != 30 {
		t.Errorf("counted %v", got)
	}
	if answers := e.Answers(); len(answers) != 1 || len(answers[0].Owners) != 30 {
		t.Errorf("events %+v", answers)
	}
}

// loopbackNamespace moves the test into a network namespace of its own, whose loopback is up.
func loopbackNamespace(t testing.TB) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread ends with the test's goroutine, and the namespace with it
	namespace, err := netns.New()
	if err != nil {
		t.Fatalf("make a network namespace: %v", err)
	}
	t.Cleanup(func() { _ = namespace.Close() })
	loopback, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(loopback)
	}
	if err != nil {
		t.Fatalf("set loopback up: %v", err)
	}
}

func listen(t *testing.T) *net.UDPConn {
	t.Helper()
	connection, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatalf("listen: %v", err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	return connection
}

// filter attaches a program to a packet socket on all interfaces, which receives only what the program
// gives anything but 0 for.
func filter(t testing.TB, program *ebpf.Program, protocol uint16) (socket int) {
	t.Helper()
	socket, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(network(protocol)))
	if err != nil {
		t.Fatalf("open a packet socket: %v", err)
	}
	t.Cleanup(func() { _ = unix.Close(socket) })
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, trampoline(t, program).FD()); err != nil {
		t.Fatalf("attach the program: %v", err)
	}
	return socket
}

// trampoline gives a small program that goes on with another: older kernels charge a filter's size to
// the socket, which may hold no more than 20 KiB.
func trampoline(t testing.TB, program *ebpf.Program) *ebpf.Program {
	t.Helper()
	targets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatalf("make a program array: %v", err)
	}
	t.Cleanup(func() { _ = targets.Close() })
	if err := targets.Put(uint32(0), program); err != nil {
		t.Fatalf("put the program: %v", err)
	}
	jump, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type:    ebpf.SocketFilter,
		License: "GPL",
		Instructions: asm.Instructions{
			asm.LoadMapPtr(asm.R2, targets.FD()),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnTailCall.Call(),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		t.Fatalf("load the trampoline: %v", err)
	}
	t.Cleanup(func() { _ = jump.Close() })
	return jump
}
