package syncserver

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// encoded is a message whose parts were encoded already, for many streams at once. Their bytes are one
// message together, because the fields of SyncResponse are repeated or last-wins.
type encoded [3][]byte

// codec passes encoded messages through and leaves all others to the codec of gRPC.
type codec struct {
	encoding.CodecV2
}

// Codec returns the codec that the server must be made with (grpc.ForceServerCodecV2).
func Codec() encoding.CodecV2 {
	return codec{encoding.GetCodecV2(proto.Name)}
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
