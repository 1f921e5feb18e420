package lab

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// Caller resolves and connects from a namespace, again and again, on a thread that stays in it: a tenth of what it
// costs to enter for each socket. It is for one goroutine.
type Caller struct{ buffer []byte }

// Call runs f on a thread of the namespace. What f calls through the Caller blocks that thread alone.
func (n *Namespace) Call(f func(c *Caller)) error {
	return n.Do(func() error {
		f(&Caller{buffer: make([]byte, 4096)})
		return nil
	})
}

// Resolve asks a DNS server for the addresses of a name, of the server's own family.
func (c *Caller) Resolve(server netip.Addr, name string) ([]netip.Addr, error) {
	kind := dnsmessage.TypeA
	if server.Is6() {
		kind = dnsmessage.TypeAAAA
	}
	id, query, err := question(name, kind)
	if err != nil {
		return nil, err
	}
	fd, err := dial(unix.SOCK_DGRAM, netip.AddrPortFrom(server, 53))
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, query); err != nil {
		return nil, os.NewSyscallError("write", err)
	}
	size, err := read(fd, c.buffer)
	if err != nil {
		return nil, err
	}
	return addressesIn(c.buffer[:size], id)
}

// Connect opens a connection and hears the service's greeting, as Namespace.Connect does.
func (c *Caller) Connect(address netip.Addr, port uint16) error {
	fd, err := dial(unix.SOCK_STREAM, netip.AddrPortFrom(address, port))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	heard := 0
	for {
		size, err := read(fd, c.buffer[heard:])
		if err != nil {
			return err
		}
		heard += size
		switch greeting := string(c.buffer[:heard]); {
		case strings.HasSuffix(greeting, "\n") && strings.Contains(greeting, address.String()):
			return nil
		case strings.HasSuffix(greeting, "\n") || size == 0:
			return fmt.Errorf("greeting of another service: %q", greeting)
		}
	}
}

// dial opens a socket that waits as long as the lab does for what answers: for a connection no longer than until its
// first packet would be sent again.
func dial(kind int, to netip.AddrPort) (fd int, err error) {
	family, address := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Port: int(to.Port()), Addr: as4(to.Addr())})
	if to.Addr().Is6() {
		family, address = unix.AF_INET6, &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	if fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	for option, timeout := range map[int]time.Duration{unix.SO_SNDTIMEO: noLoss, unix.SO_RCVTIMEO: 5 * time.Second} {
		limit := unix.NsecToTimeval(timeout.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, option, &limit); err != nil {
			unix.Close(fd)
			return 0, os.NewSyscallError("setsockopt", err)
		}
	}
	err = unix.EINTR
	for err == unix.EINTR { //nolint:errorlint // the call returns it as it is; the next one waits on
		err = unix.Connect(fd, address)
	}
	if err != nil {
		unix.Close(fd)
		return 0, os.NewSyscallError("connect", err)
	}
	return fd, nil
}

// read reads on after a signal: with a timeout the kernel does not by itself.
func read(fd int, buffer []byte) (size int, err error) {
	err = unix.EINTR
	for err == unix.EINTR { //nolint:errorlint // the call returns it as it is
		size, err = unix.Read(fd, buffer)
	}
	return size, os.NewSyscallError("read", err)
}

func as4(a netip.Addr) (bytes [4]byte) {
	if a.Is4() {
		bytes = a.As4()
	}
	return bytes
}
