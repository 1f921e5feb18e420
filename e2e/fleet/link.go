package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// What HTTP/2 fixes, and what is chosen within it.
const (
	frameHeader   = 9
	frameLimit    = 16 << 10 // of what is sent: no receiver takes less
	firstWindow   = 64<<10 - 1
	streamID      = 1
	messageHeader = 5 // of gRPC: compressed or not, length
	// Thousands of connections are in one process: what they read lies in small buffers.
	bufferSize = 4 << 10
)

var errWire = errors.New("the server does not speak HTTP/2 and gRPC as expected")

// link is a connection with one stream: HTTP/2 and gRPC as far as an agent needs them, on one goroutine. gRPC's own client
// has four a connection; with thousands of them in one process, which shares the machine with the server that is looked
// at, most of what would be measured is these.
type link struct {
	conn   net.Conn
	reader *bufio.Reader

	// message holds what has come of a message that is in several frames. It is of the goroutine that reads, as is what
	// was read and not given back to the server's windows yet.
	message []byte
	taken   uint32
	headers *hpack.Decoder
	ended   error // the status of the stream, once it has ended

	sending sync.Mutex // a stream takes one message at a time; taken before the others
	writing sync.Mutex // a connection takes one frame at a time

	mu sync.Mutex // guards all below
	// room is how much the server takes now, on the connection and on the stream, of which first is the window.
	connectionRoom, streamRoom, first int64
	closed                            bool
	roomier                           *sync.Cond

	watched bool         // silence counts
	heard   atomic.Int64 // when something came last, in Unix nanoseconds, where it does
}

// buffers are for what is sent.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// open connects to a server and begins the stream with a hello.
func (a *Agent) open(ctx context.Context, server string, hello *agentv1.Hello) (*link, error) {
	dialing, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	raw, err := a.fleet.cfg.Dial(dialing, server)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	credentials := a.fleet.cfg.Credentials(a.node)
	conn, _, err := credentials.ClientHandshake(dialing, server, raw)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), raw.Close())
	}
	l := &link{
		conn: conn, reader: bufio.NewReaderSize(conn, bufferSize), connectionRoom: firstWindow, streamRoom: firstWindow, first: firstWindow,
	}
	l.roomier = sync.NewCond(&l.mu)
	l.headers = hpack.NewDecoder(4<<10, nil)
	message, err := proto.Marshal(&agentv1.SyncRequest{Message: &agentv1.SyncRequest_Hello{Hello: hello}})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	scheme := "http"
	if credentials.Info().SecurityProtocol == "tls" {
		scheme = "https"
	}
	if _, err := conn.Write(preface(scheme, server)); err != nil {
		return nil, errors.Join(fmt.Errorf("begin stream: %w", err), conn.Close())
	}
	if err := l.send(message); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

// preface is what a client says first, up to the headers of the stream.
func preface(scheme, authority string) []byte {
	text := []byte(http2.ClientPreface)
	text = appendFrame(text, http2.FrameSettings, 0, 0, binary.BigEndian.AppendUint32(
		binary.BigEndian.AppendUint16(nil, uint16(http2.SettingInitialWindowSize)), windowSize))
	text = appendFrame(text, http2.FrameWindowUpdate, 0, 0, binary.BigEndian.AppendUint32(nil, windowSize-firstWindow))
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", scheme},
		{":path", agentv1.SyncService_Sync_FullMethodName},
		{":authority", authority},
		{"content-type", "application/grpc"},
		{"user-agent", "nameward-fleet"},
		{"te", "trailers"},
	} {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}) // a buffer takes everything
	}
	return appendFrame(text, http2.FrameHeaders, http2.FlagHeadersEndHeaders, streamID, block.Bytes())
}

func appendHeader(text []byte, size int, kind http2.FrameType, flags http2.Flags, stream uint32) []byte {
	text = append(text, byte(size>>16), byte(size>>8), byte(size), byte(kind), byte(flags)) //nolint:gosec // the bytes are meant
	return binary.BigEndian.AppendUint32(text, stream)
}

func appendFrame(text []byte, kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) []byte {
	return append(appendHeader(text, len(payload), kind, flags, stream), payload...)
}

// send sends a message that is encoded.
func (l *link) send(message []byte) error {
	l.sending.Lock()
	defer l.sending.Unlock()
	prefix := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))) //nolint:gosec // messages are short
	for first := true; first || len(message) > 0; first = false {
		wanted := min(len(prefix)+len(message), frameLimit)
		size, err := l.takeRoom(wanted)
		if err != nil {
			return err
		}
		if size < len(prefix) {
			return fmt.Errorf("%w: a window of %d bytes", errWire, size)
		}
		text, _ := buffers.Get().(*[]byte)
		*text = append(appendHeader((*text)[:0], size, http2.FrameData, 0, streamID), prefix...)
		n := size - len(prefix)
		*text = append(*text, message[:n]...)
		message, prefix = message[n:], nil
		err = l.write(*text)
		buffers.Put(text)
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *link) write(text []byte) error {
	l.writing.Lock()
	defer l.writing.Unlock()
	if _, err := l.conn.Write(text); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// takeRoom waits until the server takes something, and returns how much of what is wanted.
func (l *link) takeRoom(wanted int) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		room := min(l.connectionRoom, l.streamRoom)
		switch {
		case l.closed:
			return 0, fmt.Errorf("send: %w", net.ErrClosed)
		case room >= int64(min(wanted, messageHeader)):
			size := min(wanted, int(room))
			l.connectionRoom -= int64(size)
			l.streamRoom -= int64(size)
			return size, nil
		}
		l.roomier.Wait()
	}
}

// close ends the connection; who sends or receives on it hears of it.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.roomier.Broadcast()
	l.mu.Unlock()
	_ = l.conn.Close() // nothing is lost that anybody waits for
}

// appendAck is the encoded SyncRequest of an acknowledgement.
func appendAck(text []byte, revision uint64, id string) []byte {
	const fieldAck, fieldAckRevision, fieldAckRuleSetID = 2, 1, 2
	size := protowire.SizeTag(fieldAckRevision) + protowire.SizeVarint(revision) + protowire.SizeTag(fieldAckRuleSetID) + protowire.SizeBytes(len(id))
	text = protowire.AppendVarint(protowire.AppendTag(text, fieldAck, protowire.BytesType), uint64(size)) //nolint:gosec // it is small
	text = protowire.AppendVarint(protowire.AppendTag(text, fieldAckRevision, protowire.VarintType), revision)
	return protowire.AppendString(protowire.AppendTag(text, fieldAckRuleSetID, protowire.BytesType), id)
}

// watch gives the connection up when it is silent for too long. The function returned ends it.
func (l *link) watch(silence time.Duration) (stop func()) {
	if silence == 0 {
		return func() {}
	}
	l.watched = true
	l.heard.Store(time.Now().UnixNano())
	ctx, cancel := context.WithCancel(context.Background())
	var look func()
	look = func() {
		if ctx.Err() != nil {
			return
		}
		time.AfterFunc(silence/2, look)
		switch silent := time.Since(time.Unix(0, l.heard.Load())); {
		case silent > silence+silence/2:
			l.close()
		case silent > silence/2:
			_ = l.write(appendFrame(nil, http2.FramePing, 0, 0, make([]byte, 8))) // who reads hears of what is broken
		}
	}
	time.AfterFunc(silence/2, look)
	return cancel
}
