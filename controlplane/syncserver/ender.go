package syncserver

import (
	"context"
	"log/slog"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// ender ends a stream on which another goroutine receives.
type ender struct {
	log    *slog.Logger
	cancel context.CancelFunc

	mu sync.Mutex // guards all below
	// stream is that of gRPC, from when its handler runs.
	stream grpc.ServerTransportStream
	// cause is what the stream was ended for first, told what its agent hears of it.
	cause, told error
}

// statusWriter is what gRPC's streams are, though it does not say so. What receives on a stream whose context ends tells
// the other end no more than that: the status must be there before. A gRPC that has it no longer costs agents the
// reason, not the end.
type statusWriter interface {
	WriteStatus(*status.Status) error
}

// enderOf returns what ends the stream of a context; nil when its headers came past Tap.
func enderOf(ctx context.Context) *ender {
	e, _ := ctx.Value(enderKey{}).(*ender)
	if e != nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.stream = grpc.ServerTransportStreamFromContext(ctx)
	}
	return e
}

// end ends the stream; only the first cause counts. Without one, there is nobody who would hear it.
func (e *ender) end(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if cause != nil && e.cause == nil {
		e.cause, e.told = cause, toStatus(e.log, cause)
		if writer, ok := e.stream.(statusWriter); ok && e.told != nil {
			_ = writer.WriteStatus(status.Convert(e.told)) // fails where nobody is left to read it
		}
	}
	e.cancel()
}

// causeOf returns what ended the stream and what its agent heard, or for both err where that was its own end.
func (e *ender) causeOf(err error) (cause, told error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cause != nil {
		return e.cause, e.told
	}
	return err, err
}
