package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestHumanDuration(t *testing.T) {
	tests := []struct {
		duration time.Duration
		want     string
	}{
		{-time.Minute, "0s"},
		{0, "0s"},
		{1499 * time.Millisecond, "1s"},
		{42 * time.Second, "42s"},
		{59600 * time.Millisecond, "1m0s"},
		{3*time.Minute + 10*time.Second, "3m10s"},
		{5*time.Hour + 12*time.Minute + 59*time.Second, "5h12m"},
		{76 * time.Hour, "3d4h"},
	}
	for _, test := range tests {
		if got := humanDuration(test.duration); got != test.want {
			t.Errorf("humanDuration(%v): got %s, want %s", test.duration, got, test.want)
		}
	}
}

func TestCamelPath(t *testing.T) {
	got := camelPath(`node_selector.match_labels["my_key"].end_port[3]`)
	if want := `nodeSelector.matchLabels["my_key"].endPort[3]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestDescribeError(t *testing.T) {
	refused, err := status.New(codes.InvalidArgument, "page_size: is negative (and 4 more)").WithDetails(
		&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: "page_size", Description: "is negative"}, {Field: "page_token", Description: "is of another list"},
		}}, &errdetails.ErrorInfo{Metadata: map[string]string{"violations": "5"}})
	if err != nil {
		t.Fatal(err)
	}
	to := options{server: "127.0.0.1:7443", timeout: 10 * time.Second}
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"plain", errors.New("read file"), "read file"},
		{
			"no answer", status.Error(codes.DeadlineExceeded, "context deadline exceeded"),
			"the policy server at 127.0.0.1:7443 gave no answer within 10s (--timeout)",
		},
		{
			"not offered", status.Error(codes.Unimplemented, "unknown service"),
			"the policy server at 127.0.0.1:7443 does not offer this: unknown service",
		},
		{
			"server fault", status.Error(codes.Internal, "internal error"),
			"the policy server at 127.0.0.1:7443 has a fault of its own: internal error",
		},
		{"interrupted", status.Error(codes.Canceled, "context canceled"), "interrupted"},
		{"the name once", fmt.Errorf("policies/a: %w", status.Error(codes.NotFound, "policies/a: not found")), "policies/a: not found"},
		{"fields", refused.Err(), "the request has faults:\n  page_size: is negative\n  page_token: is of another list\n  …: 3 more faults"},
		{"several", errors.Join(errors.New("one"), status.Error(codes.NotFound, "two")), "one\ntwo"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := describeError(test.err, to); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestColours holds that only a terminal gets colours, and not when NO_COLOR or TERM=dumb asks for none.
func TestColours(t *testing.T) {
	// The null device is a character device, as a terminal is, that every machine has.
	device, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = device.Close() })
	tests := []struct {
		name        string
		stdout      io.Writer
		environment map[string]string
		want        string
	}{
		{"device", device, nil, "\x1b[31mDENY\x1b[0m"},
		{"pipe", io.Discard, nil, "DENY"},
		{"NO_COLOR", device, map[string]string{"NO_COLOR": "1"}, "DENY"},
		{"empty NO_COLOR", device, map[string]string{"NO_COLOR": ""}, "\x1b[31mDENY\x1b[0m"},
		{"dumb terminal", device, map[string]string{"TERM": "dumb"}, "DENY"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := &program{stdout: test.stdout, lookupEnv: func(name string) (string, bool) {
				value, ok := test.environment[name]
				return value, ok
			}}
			if got := p.painter().apply(styleBad, "DENY"); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
