package syncserver

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// encoded is a message whose parts were encoded already, for many streams at once. Their bytes are one
// message together, because the fields of SyncResponse are repeated or last-wins.
type encoded [3][]byte

// codec passes encoded messages through and leaves all others to the codec of gRPC.
type codec struct {
	encoding.CodecV2
	bounded prometheus.Counter
}

// Codec returns the codec that the server must be made with (grpc.ForceServerCodecV2).
func (s *Server) Codec() encoding.CodecV2 {
	return codec{encoding.GetCodecV2(proto.Name), s.metrics.bounded}
}

// Unmarshal decodes a message, unless it is of a node and larger than any that an agent sends: decoded it would take
// many times its bytes.
func (c codec) Unmarshal(data mem.BufferSlice, message any) error {
	in, behindHello := message.(*incoming)
	if _, ok := message.(*agentv1.SyncRequest); (ok || behindHello) && data.Len() > maxRequest {
		c.bounded.Inc()
		return tooMuch("message", "bytes", data.Len(), maxRequest)
	}
	if behindHello {
		in.read(data)
		return nil
	}
	return c.CodecV2.Unmarshal(data, message) //nolint:wrapcheck // gRPC says what it was
}

// Marshal returns the encoding of a message.
func (c codec) Marshal(message any) (mem.BufferSlice, error) {
	parts, ok := message.(encoded)
	if !ok {
		buffers, err := c.CodecV2.Marshal(message)
		if err != nil {
			return nil, fmt.Errorf("encode message: %w", err)
		}
		return buffers, nil
	}
	buffers := make(mem.BufferSlice, 0, len(parts))
	for _, part := range parts {
		if len(part) > 0 {
			buffers = append(buffers, mem.SliceBuffer(part))
		}
	}
	return buffers, nil
}
