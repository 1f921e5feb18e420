package controlplane

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/mem"

	"github.com/nameward/nameward/api/transport"
)

// lentBuffers is a pool that knows how many of its buffers are out.
type lentBuffers struct {
	out      atomic.Int32
	returned chan struct{}
}

func (p *lentBuffers) Get(length int) *[]byte {
	p.out.Add(1)
	buffer := make([]byte, length)
	return &buffer
}

func (p *lentBuffers) Put(*[]byte) {
	p.out.Add(-1)
	p.returned <- struct{}{}
}

// accepted returns a connection as gRPC has it in plain text, and the other end, whose first byte has come.
func accepted(t *testing.T) (near, far net.Conn) {
	t.Helper()
	inner, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	listener := newConnections(inner, 1, log)
	t.Cleanup(func() { _ = listener.Close() })
	far, err = new(net.Dialer).DialContext(t.Context(), "tcp", inner.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	raw, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	if _, err := far.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	near, _, err = transport.NewPlainServer(transport.NewRefusals(log)).ServerHandshake(raw)
	if err != nil {
		t.Fatal(err)
	}
	return near, far
}

// gRPC asks a connection for this method, and keeps a buffer for each that has it not.
type readyReader interface {
	ReadOnReady(size int, pool mem.BufferPool) (buffer *[]byte, n int, err error)
}

// A silent connection holds no buffer, and what is read is all that came, to the end.
func TestSilentConnectionsHoldNoBuffers(t *testing.T) {
	conn, far := accepted(t)
	near, ok := conn.(readyReader)
	if !ok {
		t.Fatalf("gRPC keeps a buffer for a %T", conn)
	}
	pool := &lentBuffers{returned: make(chan struct{}, 8)}
	read := func() (string, error) {
		buffer, n, err := near.ReadOnReady(16, pool)
		if buffer == nil {
			return "", err
		}
		defer func() { pool.Put(buffer); <-pool.returned }()
		return string((*buffer)[:n]), err
	}
	if got, err := read(); got != "x" || err != nil {
		t.Fatalf("first read %q, %v", got, err)
	}
	type result struct {
		text string
		err  error
	}
	results := make(chan result)
	go func() {
		text, err := read()
		results <- result{text, err}
	}()
	<-pool.returned // it has found nothing
	if held := pool.out.Load(); held != 0 {
		t.Errorf("%d buffers are held while nothing comes", held)
	}
	if _, err := far.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := <-results; got.text != "hello" || got.err != nil {
		t.Errorf("read %q, %v", got.text, got.err)
	}
	if err := conn.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("behind its deadline: %v", err)
	}
	if err := errors.Join(conn.SetReadDeadline(time.Time{}), far.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := read(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if held := pool.out.Load(); held != 0 {
		t.Errorf("%d buffers are held at the end", held)
	}
}
