package syncserver

import (
	"errors"
	"io"
	"log/slog"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/nameward/nameward/controlplane/storage"
)

var (
	errNoHello   = errors.New("the first message must be hello, and hello is said once")
	errTooMuch   = errors.New("the node says too much")
	errHelloLate = errors.New("no hello came in time")
	errClaimed   = errors.New("another live agent claims this node")
	errReplaced  = errors.New("the agent has opened another stream")
	errStopping  = errors.New("server is stopping")
	errForgotten = errors.New("the node was forgotten")
	errBusy      = errors.New("too many agents begin, and this one has waited for its turn for too long")
	errBehind    = errors.New("this server is behind and cannot catch up: another one may be ahead")
	errNotTapped = errors.New("the stream has not come by way of Tap")
	// errNotTheNode is followed by who it is instead.
	errNotTheNode = errors.New("an agent speaks for its own node alone")
)

// toStatus turns the end of a stream into what the agent hears of it, and logs what it must not see.
func toStatus(log *slog.Logger, err error) error {
	switch {
	case err == nil, errors.Is(err, io.EOF):
		return nil
	case errors.Is(err, errNoHello), errors.Is(err, errTooMuch):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, errHelloLate):
		return status.Error(codes.DeadlineExceeded, err.Error())
	case errors.Is(err, errClaimed):
		return withReason(codes.AlreadyExists, err, "CLAIMED")
	case errors.Is(err, errNotTheNode):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, errReplaced), errors.Is(err, errForgotten):
		return status.Error(codes.Aborted, err.Error())
	case errors.Is(err, errStopping):
		return withReason(codes.Unavailable, err, "STOPPING")
	case errors.Is(err, errBehind):
		return withReason(codes.Unavailable, err, "BEHIND")
	case errors.Is(err, errBusy):
		return withReason(codes.Unavailable, err, "BUSY")
	case errors.Is(err, storage.ErrUnavailable), errors.Is(err, storage.ErrUnknownOutcome):
		return withReason(codes.Unavailable, err, "STORAGE")
	}
	// An error of gRPC itself, as Recv and Send return them, or of the interceptor that checks messages.
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	if s := status.FromContextError(err); s.Code() != codes.Unknown {
		return s.Err()
	}
	log.Error("stream ended", "err", err)
	return status.Error(codes.Internal, "internal error")
}

// withReason says for programs too why a stream ends, and when to come again.
func withReason(code codes.Code, err error, reason string) error {
	s := status.New(code, err.Error())
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: "nameward"}}
	if after := againIn(err); after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	detailed, detailErr := s.WithDetails(details...)
	if detailErr != nil {
		return s.Err() // the code matters more
	}
	return detailed.Err()
}
