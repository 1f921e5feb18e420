package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// ListenDNS has the world listen for questions over TCP on an address of its own, which it gives it. The
// listener goes with the lab.
func (l *Lab) ListenDNS(ctx context.Context, address netip.Addr) (net.Listener, error) {
	if err := l.AddWorldAddress(ctx, address); err != nil {
		return nil, err
	}
	var listener net.Listener
	err := l.World.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(address, 53).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	l.cleanup = append(l.cleanup, func() error {
		if err := listener.Close(); !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	})
	return listener, nil
}

// SegmentAnswers has each segment that the world sends be a packet of its own, no larger than a wire's.
func (l *Lab) SegmentAnswers(ctx context.Context) error {
	return run(ctx, "ip", "-n", l.World.Name, "link", "set", "eth0", "gso_max_segs", "1")
}

// LoseAnswers has the world's network lose a share of what is answered over TCP.
func (l *Lab) LoseAnswers(ctx context.Context, share float64) error {
	for _, iptables := range []string{"iptables", "ip6tables"} {
		command := l.World.Command(ctx, iptables, "-w", "-A", "OUTPUT", "-p", "tcp", "--sport", "53", "-m", "length", "--length", "100:65535",
			"-m", "statistic", "--mode", "random", "--probability", fmt.Sprint(share), "-j", "DROP")
		if out, err := command.CombinedOutput(); err != nil {
			return fmt.Errorf("lose answers: %w: %s", err, out)
		}
	}
	return nil
}

// A Stream is either side of a connection over which questions and answers go.
type Stream struct{ net.Conn }

// DialDNS opens a connection to a resolver.
func (n *Namespace) DialDNS(resolver netip.Addr) (Stream, error) {
	conn, err := n.Dial("tcp", netip.AddrPortFrom(resolver, 53).String(), Patience)
	return Stream{conn}, err
}

// Framed puts its length before each message.
func Framed(messages ...[]byte) []byte {
	var stream []byte
	for _, message := range messages {
		stream = append(binary.BigEndian.AppendUint16(stream, uint16(len(message))), message...)
	}
	return stream
}

// Hear waits for the next message.
func (s Stream) Hear() ([]byte, error) {
	length, err := s.HearBytes(2)
	if err != nil {
		return nil, err
	}
	return s.HearBytes(int(binary.BigEndian.Uint16(length)))
}

// HearBytes waits for so many bytes.
func (s Stream) HearBytes(count int) ([]byte, error) {
	if err := s.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return nil, err
	}
	bytes := make([]byte, count)
	if _, err := io.ReadFull(s, bytes); err != nil {
		return nil, fmt.Errorf("hear %d bytes: %w", count, err)
	}
	return bytes, nil
}
