package fleet

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	protobuf "google.golang.org/protobuf/proto"
)

// receive reads the next response. At the end of the stream it returns the status that the server ended it with.
func (l *link) receive(r *response) error {
	for {
		if n := messageSize(l.message); n <= len(l.message) {
			err := r.read(l.message[messageHeader:n])
			l.message = l.message[:copy(l.message, l.message[n:])]
			if len(l.message) == 0 && cap(l.message) > bufferSize {
				l.message = nil
			}
			return err
		}
		if l.ended != nil {
			return l.ended
		}
		if whole, err := l.frame(r); whole || err != nil {
			return err
		}
	}
}

// messageSize returns how long the first message of a text is, its header included; without all of the header more than
// there is.
func messageSize(text []byte) int {
	if len(text) < messageHeader {
		return messageHeader
	}
	return messageHeader + int(binary.BigEndian.Uint32(text[1:]))
}

// frame takes a frame in, and reports whether it was a whole response, which it has read then.
func (l *link) frame(r *response) (whole bool, err error) {
	header, err := l.reader.Peek(frameHeader)
	if err != nil {
		return false, fmt.Errorf("receive: %w", err)
	}
	size := int(header[0])<<16 | int(header[1])<<8 | int(header[2])
	kind, flags, stream := http2.FrameType(header[3]), http2.Flags(header[4]), binary.BigEndian.Uint32(header[5:])
	_, _ = l.reader.Discard(frameHeader) // it is there
	if l.watched {
		l.heard.Store(time.Now().UnixNano())
	}
	if size > frameLimit {
		return false, fmt.Errorf("%w: a frame of %d bytes", errWire, size)
	}
	if kind == http2.FrameData {
		return l.data(size, flags, r)
	}
	payload := make([]byte, size)
	if _, err := io.ReadFull(l.reader, payload); err != nil {
		return false, fmt.Errorf("receive: %w", err)
	}
	return false, l.control(kind, flags, stream, payload)
}

// data takes in what a frame has of messages. Nearly always that is one, which is read where it lies.
func (l *link) data(size int, flags http2.Flags, r *response) (whole bool, err error) {
	if flags.Has(http2.FlagDataPadded) {
		return false, fmt.Errorf("%w: padding", errWire)
	}
	if err := l.giveRoom(size); err != nil {
		return false, err
	}
	if len(l.message) == 0 && size <= bufferSize {
		text, err := l.reader.Peek(size)
		if err != nil {
			return false, fmt.Errorf("receive: %w", err)
		}
		if messageSize(text) == size {
			err = r.read(text[messageHeader:])
			_, _ = l.reader.Discard(size) // it is there
			return true, err
		}
	}
	had := len(l.message)
	l.message = append(l.message, make([]byte, size)...)
	if _, err := io.ReadFull(l.reader, l.message[had:]); err != nil {
		return false, fmt.Errorf("receive: %w", err)
	}
	return false, nil
}

// giveRoom gives what was read back to the server's windows, now and then.
func (l *link) giveRoom(size int) error {
	l.taken += uint32(size) //nolint:gosec // of a frame
	if l.taken < windowSize/2 {
		return nil
	}
	increment := binary.BigEndian.AppendUint32(nil, l.taken)
	l.taken = 0
	return l.write(appendFrame(appendFrame(nil, http2.FrameWindowUpdate, 0, 0, increment), http2.FrameWindowUpdate, 0, streamID, increment))
}

// control takes in a frame that is not data.
func (l *link) control(kind http2.FrameType, flags http2.Flags, stream uint32, payload []byte) error {
	switch kind {
	case http2.FrameSettings:
		if flags.Has(http2.FlagSettingsAck) {
			return nil
		}
		l.settings(payload)
		return l.write(appendFrame(nil, http2.FrameSettings, http2.FlagSettingsAck, 0, nil))
	case http2.FramePing:
		if flags.Has(http2.FlagPingAck) {
			return nil
		}
		return l.write(appendFrame(nil, http2.FramePing, http2.FlagPingAck, 0, payload))
	case http2.FrameWindowUpdate:
		if len(payload) == 4 {
			l.grow(stream, int64(binary.BigEndian.Uint32(payload)))
		}
	case http2.FrameRSTStream:
		l.ended = status.Errorf(codes.Unavailable, "the server reset the stream: %x", payload)
	case http2.FrameGoAway:
		// The stream goes on, unless the server has not seen it.
		if len(payload) >= 8 && binary.BigEndian.Uint32(payload) < streamID {
			l.ended = status.Errorf(codes.Unavailable, "the server goes away: %q", payload[8:])
		}
	case http2.FrameHeaders:
		return l.header(flags, payload)
	case http2.FrameContinuation, http2.FramePushPromise:
		return fmt.Errorf("%w: %s", errWire, kind)
	}
	return nil
}

// settings takes in the window that the server has for a stream.
func (l *link) settings(payload []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; len(payload) >= 6; payload = payload[6:] {
		if http2.SettingID(binary.BigEndian.Uint16(payload)) == http2.SettingInitialWindowSize {
			window := int64(binary.BigEndian.Uint32(payload[2:]))
			l.streamRoom += window - l.first
			l.first = window
		}
	}
	l.roomier.Broadcast()
}

// grow takes in that the server takes more.
func (l *link) grow(stream uint32, by int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if stream == 0 {
		l.connectionRoom += by
	} else {
		l.streamRoom += by
	}
	l.roomier.Broadcast()
}

// header takes in what stands before the responses, or behind them.
func (l *link) header(flags http2.Flags, payload []byte) error {
	if !flags.Has(http2.FlagHeadersEndHeaders) || flags.Has(http2.FlagHeadersPadded) || flags.Has(http2.FlagHeadersPriority) {
		return fmt.Errorf("%w: headers with flags %x", errWire, flags)
	}
	fields, err := l.headers.DecodeFull(payload)
	if err != nil {
		return fmt.Errorf("%w: %w", errWire, err)
	}
	if flags.Has(http2.FlagHeadersEndStream) {
		l.ended = endOf(fields)
	}
	return nil
}

// endOf returns the status of a stream, io.EOF for OK.
func endOf(fields []hpack.HeaderField) error {
	code, text := codes.Unknown, ""
	var details []byte
	for _, field := range fields {
		switch field.Name {
		case "grpc-status":
			if number, err := strconv.ParseUint(field.Value, 10, 32); err == nil {
				code = codes.Code(number)
			}
		case "grpc-status-details-bin":
			// Padding is as the sender likes.
			details, _ = base64.RawStdEncoding.DecodeString(strings.TrimRight(field.Value, "="))
		case "grpc-message":
			if text = field.Value; text != "" {
				if plain, err := url.PathUnescape(text); err == nil {
					text = plain
				}
			}
		}
	}
	if code == codes.OK {
		return io.EOF
	}
	var whole spb.Status
	if len(details) > 0 && protobuf.Unmarshal(details, &whole) == nil && codes.Code(whole.GetCode()) == code { //nolint:gosec // a code
		return status.FromProto(&whole).Err() //nolint:wrapcheck // it is what the server said
	}
	return status.Error(code, text) //nolint:wrapcheck // it is what the server said
}
