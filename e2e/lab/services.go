package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
)

// startServices answers on every service address of the world, on two TCP ports.
func (l *Lab) startServices() error {
	for _, port := range []int{ServicePort, OtherPort} {
		var listener net.Listener
		err := l.World.Do(func() (err error) {
			listener, err = net.Listen("tcp", fmt.Sprintf("[::]:%d", port))
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
			address, _ := netip.ParseAddrPort(conn.LocalAddr().String())
			if _, err := fmt.Fprintf(conn, "hello from %s\n", address.Addr().Unmap()); err == nil {
				_, _ = io.Copy(conn, conn)
			}
		}()
	}
}
