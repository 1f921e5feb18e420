package syncserver

import (
	"errors"
	"time"

	"github.com/nameward/nameward/controlplane/storage"
)

// When an agent that was refused may come again, where that is no matter of the server's state.
const (
	// claimAgain is for a node that another live agent has, which may be one that just left.
	claimAgain = 2 * time.Second
	// storageAgain is for a storage that does not answer.
	storageAgain = 2 * time.Second
	// behindAgain is what another attempt to catch up takes.
	behindAgain = publishTime
	// busyAgain is for an agent that has waited for its turn for admissionTime.
	busyAgain = 10 * time.Second
	// goneAgain is for a server that is about to be gone: another one in its place needs a moment.
	goneAgain = time.Second
)

// againError says beside why a stream ends when its agent may come again.
type againError struct {
	error
	after time.Duration
}

// Unwrap returns why.
func (e *againError) Unwrap() error { return e.error }

// againIn returns when the agent may come again whose stream ended for this; 0 where that is no matter of time.
func againIn(err error) time.Duration {
	if again, ok := errors.AsType[*againError](err); ok {
		return again.after
	}
	switch {
	case errors.Is(err, errStopping):
		return goneAgain
	case errors.Is(err, errBehind):
		return behindAgain
	case errors.Is(err, errBusy):
		return busyAgain
	case errors.Is(err, errClaimed):
		return claimAgain
	case errors.Is(err, storage.ErrUnavailable), errors.Is(err, storage.ErrUnknownOutcome):
		return storageAgain
	}
	return 0
}
