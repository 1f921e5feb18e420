package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

const (
	answerPatience = 5 * time.Second
	// synPatience is less than the time after which a client sends its first packet again (RFC 6298).
	synPatience = 900 * time.Millisecond
)

// visits are what became of names that were resolved, and connected to at once.
type visits struct {
	took []float64 // microseconds, of those that came through
	lost int       // the first packet of these did not come through
}

// visit resolves fresh names from the way's client and connects to the address of each as soon as the answer
// is there, one after the other.
func (w *way) visit(ctx context.Context, from, count int) (visits, error) {
	var v visits
	err := w.client.Do(func() error {
		for number := from; number < from+count; number++ {
			if err := ctx.Err(); err != nil {
				return err //nolint:wrapcheck // the caller's own
			}
			name, address := freshName(number)
			start := time.Now()
			if err := resolve(w.server, name, address, uint16(number)); err != nil { //nolint:gosec // an id is the low bits
				return fmt.Errorf("resolve %s: %w", name, err)
			}
			lost, err := connect(address)
			if err != nil {
				return fmt.Errorf("connect to %s: %w", address, err)
			}
			if lost {
				v.lost++
				continue
			}
			v.took = append(v.took, float64(time.Since(start).Nanoseconds())/1000)
		}
		return nil
	})
	return v, err
}

// resolve asks from a port of its own, as the resolver of a C library does.
func resolve(server netip.Addr, name string, want netip.Addr, id uint16) error {
	fd, err := dialUDP(server, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // read already
	patience := unix.NsecToTimeval(answerPatience.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &patience); err != nil {
		return fmt.Errorf("set patience: %w", err)
	}
	if _, err := unix.Write(fd, appendQuestion(nil, id, name)); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer := make([]byte, answerBytes)
	size, err := retry(func() (int, error) { return unix.Read(fd, answer) })
	if err != nil {
		return fmt.Errorf("hear answer: %w", err)
	}
	return checkAnswer(answer[:size], id, want)
}

// connect opens a connection and ends it. The first packet was lost if it was refused, or had to be sent
// again: the kernel knows.
func connect(address netip.Addr) (lost bool, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("make socket: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	patience := unix.NsecToTimeval(synPatience.Nanoseconds())
	if err := errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &patience),
		// A reset at the end leaves nothing that waits.
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
	); err != nil {
		return false, fmt.Errorf("set up socket: %w", err)
	}
	_, err = retry(func() (int, error) {
		return 0, unix.Connect(fd, &unix.SockaddrInet4{Port: servicePort, Addr: address.As4()})
	})
	if err != nil {
		return true, nil
	}
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return false, fmt.Errorf("ask about connection: %w", err)
	}
	return info.Total_retrans > 0, nil
}

// retry does a system call again that a signal interrupted.
func retry(call func() (int, error)) (int, error) {
	for {
		result, err := call()
		if !errors.Is(err, unix.EINTR) {
			return result, err //nolint:wrapcheck // the caller says what it did
		}
	}
}
