package transport

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
)

const (
	answerTime     = 5 * time.Second
	answerFrames   = 16
	answerMaxFrame = 16 << 10
)

// answer speaks just enough HTTP/2 to end the first request on a connection with a status, so that any gRPC client
// prints why it was refused. Nothing that the peer says is looked at.
func answer(conn net.Conn, code codes.Code, text string) {
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return
	}
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(conn, preface); err != nil {
		return
	}
	if string(preface) != http2.ClientPreface {
		_, _ = fmt.Fprintf(conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n%s\n", text)
		linger(conn)
		return
	}
	framer := http2.NewFramer(conn, conn)
	framer.SetMaxReadFrameSize(answerMaxFrame)
	if err := framer.WriteSettings(); err != nil {
		return
	}
	for range answerFrames {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() && framer.WriteSettingsAck() != nil {
				return
			}
		case *http2.HeadersFrame:
			if endRequest(framer, frame.StreamID, code, text) == nil {
				linger(conn)
			}
			return
		}
	}
}

func endRequest(framer *http2.Framer, stream uint32, code codes.Code, text string) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range []hpack.HeaderField{
		{Name: ":status", Value: "200"},
		{Name: "content-type", Value: "application/grpc"},
		{Name: "grpc-status", Value: strconv.Itoa(int(code))},
		{Name: "grpc-message", Value: escape(text)},
	} {
		if err := encoder.WriteField(field); err != nil {
			return err //nolint:wrapcheck // it goes no further
		}
	}
	return framer.WriteHeaders(http2.HeadersFrameParam{ //nolint:wrapcheck // it goes no further
		StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true,
	})
}

// escape writes a message as gRPC has it in headers.
func escape(text string) string {
	var out strings.Builder
	for _, b := range []byte(text) {
		if b < ' ' || b > '~' || b == '%' {
			fmt.Fprintf(&out, "%%%02X", b)
			continue
		}
		out.WriteByte(b)
	}
	return out.String()
}
