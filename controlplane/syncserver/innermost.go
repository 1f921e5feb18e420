package syncserver

import (
	"google.golang.org/grpc"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// unwrapper is a stream that an interceptor made of another.
type unwrapper interface {
	Unwrap() grpc.ServerStream
}

// innermost returns the stream that gRPC made. What interceptors do to messages they do to hellos alone, and in a fan-out
// each layer of a thousand streams is memory that nobody has looked at for a while.
func innermost(stream grpc.ServerStream) grpc.ServerStream {
	if generic, ok := stream.(*grpc.GenericServerStream[agentv1.SyncRequest, agentv1.SyncResponse]); ok {
		stream = generic.ServerStream
	}
	for {
		wrapper, ok := stream.(unwrapper)
		if !ok {
			return stream
		}
		stream = wrapper.Unwrap()
	}
}
