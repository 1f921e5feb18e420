package traffic

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	queryBytes  = 128
	answerBytes = 1024

	// lostAfter is how long a port waits for any answer until it asks anew: a question of it is lost.
	lostAfter = 100 * time.Millisecond
)

// A flood keeps questions outstanding from many ports of a client, and counts the answers. It sends and
// receives many messages with one system call, on as many threads as there are CPUs.
type flood struct {
	askers []*asker
	next   atomic.Int64 // number of the next question
	name   func(number int) string
}

// newFlood makes the ports. Each keeps so many questions outstanding.
func newFlood(w *way, ports, outstanding int) (*flood, error) {
	f := &flood{}
	for range runtime.GOMAXPROCS(0) {
		a, err := newAsker(w, ports/runtime.GOMAXPROCS(0), outstanding)
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		f.askers = append(f.askers, a)
	}
	return f, nil
}

func (f *flood) Close() error {
	var errs []error
	for _, a := range f.askers {
		errs = append(errs, a.close())
	}
	return errors.Join(errs...)
}

// ask asks for names until ctx ends, or so many answers are there if limit is not 0. It gives the number of
// answers a second.
func (f *flood) ask(ctx context.Context, limit int, name func(number int) string) (float64, error) {
	var answered atomic.Int64
	enough := func() bool {
		return ctx.Err() != nil || limit > 0 && answered.Load() >= int64(limit)
	}
	f.name = name
	start := time.Now()
	var group errgroup.Group
	for _, a := range f.askers {
		group.Go(func() error { return a.run(f.question, &answered, enough) })
	}
	err := group.Wait()
	rate := float64(answered.Load()) / time.Since(start).Seconds()
	for _, a := range f.askers {
		err = errors.Join(err, a.settle())
	}
	return rate, err
}

func (f *flood) question(buffer []byte) []byte {
	number := f.next.Add(1) - 1
	return appendQuestion(buffer, uint16(number), f.name(int(number))) //nolint:gosec // an id is the low bits
}

// An asker is the ports of one thread.
type asker struct {
	ports  []*port
	poll   int
	events []unix.EpollEvent
	batch  batch
}

type port struct {
	fd, room, outstanding int
	heard                 time.Time
}

func newAsker(w *way, ports, outstanding int) (*asker, error) {
	a := &asker{poll: -1, events: make([]unix.EpollEvent, ports)}
	var err error
	if a.poll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("make poll: %w", err)
	}
	a.batch.init(outstanding)
	err = w.client.Do(func() error {
		for i := range ports {
			fd, err := dialUDP(w.server, unix.SOCK_NONBLOCK)
			if err != nil {
				return err
			}
			a.ports = append(a.ports, &port{fd: fd, room: outstanding})
			event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)} //nolint:gosec // what epoll gives back
			if err := unix.EpollCtl(a.poll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
				return fmt.Errorf("add to poll: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, a.close())
	}
	return a, nil
}

func dialUDP(server netip.Addr, flags int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|flags, 0)
	if err != nil {
		return -1, fmt.Errorf("make socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: 53, Addr: server.As4()}); err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("dial resolver: %w", err)
	}
	return fd, nil
}

func (a *asker) close() error {
	errs := []error{unix.Close(a.poll)}
	for _, p := range a.ports {
		errs = append(errs, unix.Close(p.fd))
	}
	return errors.Join(errs...)
}

// run asks on every port, and again as answers come.
func (a *asker) run(question func([]byte) []byte, answered *atomic.Int64, enough func() bool) error {
	for _, p := range a.ports {
		p.outstanding, p.heard = 0, time.Now()
		if err := a.fill(p, question); err != nil {
			return err
		}
	}
	looked := time.Now()
	for !enough() {
		now := time.Now()
		_, err := a.hear(lostAfter/4, func(p *port, answers int) error {
			answered.Add(int64(answers))
			p.heard = now
			return a.fill(p, question)
		})
		if err != nil {
			return err
		}
		if now.Sub(looked) < lostAfter/4 {
			continue
		}
		looked = now
		if err := a.askAnew(now, question); err != nil {
			return err
		}
	}
	return nil
}

// settle hears what is still on its way, so that it does not meet what is measured next.
func (a *asker) settle() error {
	for {
		outstanding := 0
		for _, p := range a.ports {
			outstanding += p.outstanding
		}
		if outstanding == 0 {
			return nil
		}
		ready, err := a.hear(lostAfter, func(*port, int) error { return nil })
		if err != nil || ready == 0 {
			return err
		}
	}
}

// hear waits for answers, takes those that are there, and tells of each port that has any.
func (a *asker) hear(patience time.Duration, heard func(p *port, answers int) error) (ready int, err error) {
	ready, err = retry(func() (int, error) {
		return unix.EpollWait(a.poll, a.events, int(patience.Milliseconds()))
	})
	if err != nil {
		return 0, fmt.Errorf("wait for answers: %w", err)
	}
	for _, event := range a.events[:ready] {
		p := a.ports[event.Fd]
		count, err := a.batch.receive(p.fd)
		if err != nil {
			return ready, err
		}
		p.outstanding = max(p.outstanding-count, 0)
		if err := heard(p, count); err != nil {
			return ready, err
		}
	}
	return ready, nil
}

// askAnew gives up the questions of ports that have heard nothing for long.
func (a *asker) askAnew(now time.Time, question func([]byte) []byte) error {
	for _, p := range a.ports {
		if now.Sub(p.heard) < lostAfter {
			continue
		}
		p.outstanding, p.heard = 0, now
		if err := a.fill(p, question); err != nil {
			return err
		}
	}
	return nil
}

func (a *asker) fill(p *port, question func([]byte) []byte) error {
	if p.outstanding >= p.room {
		return nil
	}
	sent, err := a.batch.send(p.fd, p.room-p.outstanding, question)
	p.outstanding += sent
	return err
}
