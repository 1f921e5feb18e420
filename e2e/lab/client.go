package lab

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"time"
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

// Refused reports whether a connection was turned down at once, rather than left without an answer.
func Refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EHOSTUNREACH)
}
