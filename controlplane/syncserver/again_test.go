package syncserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/controlplane/storage"
)

// What passes has a time, for programs to read, and what does not has none.
func TestRefusedAgentsAreToldWhenToComeAgain(t *testing.T) {
	for _, test := range []struct {
		err    error
		code   codes.Code
		reason string
		again  time.Duration
	}{
		{errStopping, codes.Unavailable, "STOPPING", goneAgain},
		{&againError{errStopping, time.Minute}, codes.Unavailable, "STOPPING", time.Minute},
		{fmt.Errorf("%w: by 3", errBehind), codes.Unavailable, "BEHIND", behindAgain},
		{errBusy, codes.Unavailable, "BUSY", busyAgain},
		{fmt.Errorf("%w: lab", errClaimed), codes.AlreadyExists, "CLAIMED", claimAgain},
		{fmt.Errorf("register node: %w", storage.ErrUnavailable), codes.Unavailable, "STORAGE", storageAgain},
		{errNoHello, codes.InvalidArgument, "", 0},
		{tooMuch("hello.labels", "labels", 1000, maxLabels), codes.InvalidArgument, "", 0},
		{errNotTheNode, codes.PermissionDenied, "", 0},
		{errors.New("a secret"), codes.Internal, "", 0},
	} {
		told := status.Convert(toStatus(slog.New(slog.DiscardHandler), test.err))
		reason, again := "", time.Duration(0)
		for _, detail := range told.Details() {
			switch detail := detail.(type) {
			case *errdetails.ErrorInfo:
				reason = detail.GetReason()
			case *errdetails.RetryInfo:
				again = detail.GetRetryDelay().AsDuration()
			}
		}
		if told.Code() != test.code || reason != test.reason || again != test.again {
			t.Errorf("%v: told %v, %q, again after %v; want %v, %q, %v", test.err, told.Code(), reason, again, test.code, test.reason, test.again)
		}
	}
}

// Who has waited for its turn for too long is told so, before it gives up by itself, and holds no place.
func TestNobodyWaitsForItsTurnForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAdmission()
		for range beginnings {
			a.places <- struct{}{}
		}
		began := time.Now()
		if _, err := a.enter(t.Context(), nil); !errors.Is(err, errBusy) || time.Since(began) != admissionTime {
			t.Errorf("got %v after %v", err, time.Since(began))
		}
		<-a.places
		leave, err := a.enter(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		leave()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errReplaced)
		a.places <- struct{}{}
		if _, err := a.enter(ctx, nil); !errors.Is(err, errReplaced) {
			t.Errorf("got %v", err)
		}
		if n := a.waiting.Load(); n != 0 {
			t.Errorf("%d are said to wait", n)
		}
		time.Sleep(beginningTime) // the places end by themselves
	})
}
