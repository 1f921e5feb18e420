package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// startServices answers on every service address of the world, on two ports of TCP and UDP.
func (l *Lab) startServices() error {
	for _, port := range []int{ServicePort, OtherPort} {
		if err := l.startEcho(port); err != nil {
			return err
		}
		var listener net.Listener
		err := l.World.Do(func() (err error) {
			listener, err = unattended.Listen(context.Background(), "tcp", fmt.Sprintf("[::]:%d", port))
			return err
		})
		if err != nil {
			return err
		}
		l.cleanup = append(l.cleanup, listener.Close)
		go serve(listener)
	}
	return nil
}

// unattended makes connections of which nobody looks whether they live: that costs each four system calls.
var unattended = net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: false}, KeepAlive: -1}

// serve greets each client, says back what it says, and ends when the listener does.
func serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		go func() {
			defer conn.Close() //nolint:errcheck // the client sees it
			address := conn.LocalAddr().(*net.TCPAddr).AddrPort()
			if _, err := conn.Write([]byte("hello from " + address.Addr().Unmap().String() + "\n")); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}()
	}
}

// freebind makes sockets that may send from an address that only a route makes local.
var freebind = net.ListenConfig{Control: func(_, _ string, conn syscall.RawConn) error {
	var err error
	return errors.Join(conn.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}), err)
}}

// startEcho sends each datagram back from the address that it was sent to, in either family.
func (l *Lab) startEcho(port int) error {
	var four, six net.PacketConn
	err := l.World.Do(func() (err error) {
		if four, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		l.cleanup = append(l.cleanup, four.Close)
		six, err = freebind.ListenPacket(context.Background(), "udp6", fmt.Sprintf("[::]:%d", port))
		return err
	})
	if err != nil {
		return err
	}
	l.cleanup = append(l.cleanup, six.Close)
	conn4, conn6 := ipv4.NewPacketConn(four), ipv6.NewPacketConn(six)
	if err := errors.Join(conn4.SetControlMessage(ipv4.FlagDst, true), conn6.SetControlMessage(ipv6.FlagDst, true)); err != nil {
		return err
	}
	go echo(func(buffer []byte) (int, net.Addr, net.IP, error) {
		size, control, from, err := conn4.ReadFrom(buffer)
		if err != nil {
			return 0, nil, nil, err
		}
		return size, from, control.Dst, nil
	}, func(packet []byte, from net.IP, to net.Addr) {
		_, _ = conn4.WriteTo(packet, &ipv4.ControlMessage{Src: from}, to)
	})
	go echo(func(buffer []byte) (int, net.Addr, net.IP, error) {
		size, control, from, err := conn6.ReadFrom(buffer)
		if err != nil {
			return 0, nil, nil, err
		}
		return size, from, control.Dst, nil
	}, func(packet []byte, from net.IP, to net.Addr) {
		_, _ = conn6.WriteTo(packet, &ipv6.ControlMessage{Src: from}, to)
	})
	return nil
}

func echo(read func([]byte) (int, net.Addr, net.IP, error), write func(packet []byte, from net.IP, to net.Addr)) {
	buffer := make([]byte, 65535)
	for {
		size, from, to, err := read(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			write(buffer[:size], to, from)
		}
	}
}
