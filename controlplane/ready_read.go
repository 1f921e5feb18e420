package controlplane

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc/mem"
)

// readyRead reads from a connection when there is something to read, and takes a buffer only then: the thousands that are
// silent hold none. It is of the goroutine that reads.
type readyRead struct {
	raw syscall.RawConn // nil where the connection has none
	// attempt is try: made once, for it is handed on at each read.
	attempt func(fd uintptr) bool

	size   int
	pool   mem.BufferPool
	buffer *[]byte
	n      int
	err    error
}

func (r *readyRead) open(conn net.Conn) {
	from, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := from.SyscallConn()
	if err != nil {
		return // it is closed, as its reader will find
	}
	r.raw, r.attempt = raw, r.try
}

// try reads what is there, and reports false when that is nothing.
func (r *readyRead) try(fd uintptr) bool {
	r.buffer = r.pool.Get(r.size)
	for {
		r.n, r.err = syscall.Read(int(fd), *r.buffer)
		if !errors.Is(r.err, syscall.EINTR) {
			break
		}
	}
	if r.n > 0 {
		return true
	}
	r.pool.Put(r.buffer)
	r.buffer = nil
	if errors.Is(r.err, syscall.EAGAIN) {
		r.err = nil
		return false
	}
	return true
}

// read waits until there is something, and returns it in a buffer of the pool.
func (r *readyRead) read(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error) {
	r.size, r.pool = size, pool
	err = r.raw.Read(r.attempt)
	if err == nil {
		err = os.NewSyscallError("read", r.err)
	}
	buffer, n = r.buffer, r.n
	r.pool, r.buffer, r.n, r.err = nil, nil, 0, nil
	switch {
	case buffer != nil:
		return buffer, n, nil
	case err == nil:
		return nil, 0, io.EOF
	}
	return nil, 0, err
}

// ReadOnReady is what gRPC reads with where a connection has it, in place of Read.
func (c *countedConnection) ReadOnReady(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error) {
	if c.ready.raw == nil {
		buffer = pool.Get(size)
		if n, err = c.Read(*buffer); n == 0 {
			pool.Put(buffer)
			buffer = nil
		}
		return buffer, n, err
	}
	buffer, n, err = c.ready.read(size, pool)
	c.counts.received.Add(uint64(n)) //nolint:gosec // never negative
	return buffer, n, err
}
