package lab

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// noLoss is the time in which a connection is made unless its first packet is lost: the client would
// send that again after one second (RFC 6298).
const noLoss = 900 * time.Millisecond

// Resolvers returns the addresses of the world's DNS server.
func (l *Lab) Resolvers() []netip.Addr { return []netip.Addr{ResolverV4, ResolverV6} }

// Connect opens a connection from the client and hears the service's greeting. A lost first packet is a
// timeout.
func (l *Lab) Connect(address netip.Addr, port uint16) error { return l.Client.Connect(address, port) }

// Connect opens a connection from the namespace and hears the service's greeting.
func (n *Namespace) Connect(address netip.Addr, port uint16) error {
	conn, err := n.Dial("tcp", netip.AddrPortFrom(address, port).String(), noLoss)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // heard already
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	greeting, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.Contains(greeting, address.String()) {
		return fmt.Errorf("greeting of another service: %q", greeting)
	}
	return err
}

// Exchange sends a datagram from the namespace and hears it back.
func (n *Namespace) Exchange(address netip.Addr, port uint16) error {
	conn, err := n.Dial("udp", netip.AddrPortFrom(address, port).String(), noLoss)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // heard already
	if err := conn.SetDeadline(time.Now().Add(noLoss)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 16))
	return err
}

// Flood sends empty datagrams from the namespace, one right after the other, and hears nothing.
func (n *Namespace) Flood(to netip.AddrPort, datagrams int) error {
	var conn net.PacketConn
	if err := n.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", ":0")
		return err
	}); err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // all is sent
	for range datagrams {
		if _, err := conn.WriteTo(nil, net.UDPAddrFromAddrPort(to)); err != nil {
			return err
		}
	}
	return nil
}

// Ping sends an ICMP echo request from the namespace and hears the reply, or the error that came instead.
func (n *Namespace) Ping(address netip.Addr) error {
	network, request := "ip4:icmp", icmp.Message{Type: ipv4.ICMPTypeEcho, Body: &icmp.Echo{ID: os.Getpid() & 0xffff, Seq: 1}}
	if address.Is6() {
		network, request.Type = "ip6:ipv6-icmp", ipv6.ICMPTypeEchoRequest
	}
	packet, err := request.Marshal(nil)
	if err != nil {
		return err
	}
	var conn net.PacketConn
	if err := n.Do(func() (err error) {
		conn, err = net.ListenPacket(network, "")
		return err
	}); err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // heard already
	if err := conn.SetDeadline(time.Now().Add(noLoss)); err != nil {
		return err
	}
	if _, err := conn.WriteTo(packet, &net.IPAddr{IP: address.AsSlice()}); err != nil {
		return err
	}
	return hearReply(conn, address)
}

// hearReply waits for an echo reply of an address, or for an error about a packet to it.
func hearReply(conn net.PacketConn, address netip.Addr) error {
	protocol := 1
	if address.Is6() {
		protocol = 58
	}
	buffer := make([]byte, 1500)
	for {
		size, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		reply, err := icmp.ParseMessage(protocol, buffer[:size])
		if err != nil {
			return err
		}
		switch reply.Type {
		case ipv4.ICMPTypeEchoReply, ipv6.ICMPTypeEchoReply:
			if from.String() == address.String() {
				return nil
			}
		case ipv4.ICMPTypeDestinationUnreachable, ipv6.ICMPTypeDestinationUnreachable:
			return syscall.ECONNREFUSED
		}
	}
}

// protocolSCTP is the IP protocol number of SCTP.
const protocolSCTP = "132"

// InitSCTP sends an SCTP INIT from the client to a service address, and hears it there. The lab has no
// SCTP stack: what arrives was let through.
func (l *Lab) InitSCTP(address netip.Addr, port uint16) error {
	network := "ip4:" + protocolSCTP
	if address.Is6() {
		network = "ip6:" + protocolSCTP
	}
	var here, there net.PacketConn
	listen := func(at *net.PacketConn) func() error {
		return func() (err error) {
			*at, err = net.ListenPacket(network, "")
			return err
		}
	}
	if err := l.World.Do(listen(&there)); err != nil {
		return err
	}
	defer there.Close() //nolint:errcheck // heard already
	if err := l.Client.Do(listen(&here)); err != nil {
		return err
	}
	defer here.Close() //nolint:errcheck // nothing is buffered
	packet := binary.BigEndian.AppendUint16(nil, 40000)
	packet = binary.BigEndian.AppendUint16(packet, port)
	packet = append(packet, make([]byte, 8)...)                 // verification tag, checksum
	packet = append(packet, 1, 0, 0, 20, 0, 0, 0, 1)            // INIT, its length, initiate tag
	packet = append(packet, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1) // window, streams, first number
	binary.LittleEndian.PutUint32(packet[8:], crc32.Checksum(packet, crc32.MakeTable(crc32.Castagnoli)))
	if _, err := here.WriteTo(packet, &net.IPAddr{IP: address.AsSlice()}); err != nil {
		return err
	}
	if err := there.SetDeadline(time.Now().Add(noLoss)); err != nil {
		return err
	}
	_, _, err := there.ReadFrom(make([]byte, 1500))
	return err
}

// Refused reports whether a connection was turned down at once, rather than left without an answer.
func Refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EHOSTUNREACH)
}
