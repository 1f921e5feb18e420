package transport

import (
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// RetryDelay returns for how long a server wants to be left alone that refused a call or ended a stream with this, by the
// google.rpc.RetryInfo of its status; 0 where it says nothing.
func RetryDelay(err error) time.Duration {
	refusal, ok := status.FromError(err)
	if !ok {
		return 0
	}
	for _, detail := range refusal.Details() {
		if info, ok := detail.(*errdetails.RetryInfo); ok {
			return info.GetRetryDelay().AsDuration()
		}
	}
	return 0
}
