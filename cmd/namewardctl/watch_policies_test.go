package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// breaking serves watches of policies that a test has written down, and breaks each at its end; the last goes on.
type breaking struct {
	namewardv1.UnimplementedPolicyServiceServer
	streams [][]*namewardv1.WatchPoliciesResponse
	mu      sync.Mutex // guards tokens
	tokens  []string
}

func (b *breaking) WatchPolicies(request *namewardv1.WatchPoliciesRequest, stream grpc.ServerStreamingServer[namewardv1.WatchPoliciesResponse]) error {
	b.mu.Lock()
	b.tokens = append(b.tokens, request.GetResumeToken())
	number := len(b.tokens)
	b.mu.Unlock()
	for _, response := range b.streams[number-1] {
		if err := stream.Send(response); err != nil {
			return err
		}
	}
	if number < len(b.streams) {
		return status.Error(codes.Unavailable, "server is stopping")
	}
	<-stream.Context().Done()
	return nil
}

// ending tells when a text has been written.
type ending struct {
	mu     sync.Mutex // guards text
	text   bytes.Buffer
	last   string
	seen   chan struct{}
	closed bool
}

func (e *ending) Write(data []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text.Write(data)
	if !e.closed && strings.Contains(e.text.String(), e.last) {
		e.closed = true
		close(e.seen)
	}
	return len(data), nil
}

// A watch of policies goes on where it broke, whether the server has the changes since or begins with a snapshot, and
// prints each change once.
func TestWatchOfPoliciesGoesOn(t *testing.T) {
	put := func(token, name, etag string) *namewardv1.WatchPoliciesResponse {
		return &namewardv1.WatchPoliciesResponse{
			Change: namewardv1.WatchPoliciesResponse_PUT, Policy: &namewardv1.Policy{Name: "policies/" + name, Etag: etag}, ResumeToken: token,
		}
	}
	gone := func(token, name string) *namewardv1.WatchPoliciesResponse {
		return &namewardv1.WatchPoliciesResponse{
			Change: namewardv1.WatchPoliciesResponse_DELETE, Policy: &namewardv1.Policy{Name: "policies/" + name}, ResumeToken: token,
		}
	}
	synced := func(token string) *namewardv1.WatchPoliciesResponse {
		return &namewardv1.WatchPoliciesResponse{Synced: true, ResumeToken: token}
	}
	reset := func(response *namewardv1.WatchPoliciesResponse) *namewardv1.WatchPoliciesResponse {
		response.Reset_ = true
		return response
	}
	b := &breaking{streams: [][]*namewardv1.WatchPoliciesResponse{
		{put("0", "a", "1"), put("0", "b", "1")}, // broken within the snapshot
		{reset(put("0", "a", "1")), put("0", "b", "1"), put("0", "c", "1"), synced("5"), put("6", "c", "2")}, // again from the beginning
		{gone("7", "b"), put("8", "d", "1")}, // goes on
		{},                                   // at once broken again
		{reset(put("0", "a", "2")), put("0", "d", "1"), synced("20"), put("21", "a", "3"), put("22", "end", "1")}, // what was missed is not known there
	}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	namewardv1.RegisterPolicyServiceServer(server, b)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		<-served
	}()
	ctx, cancel := context.WithCancel(t.Context())
	out, complaints := &ending{last: "policies/end", seen: make(chan struct{})}, &ending{last: "never", seen: make(chan struct{})}
	p := &program{
		stdin: strings.NewReader(""), stdout: out, stderr: complaints, now: time.Now,
		lookupEnv: func(string) (string, bool) { return "", false }, readFile: func(string) ([]byte, error) { return nil, nil },
	}
	ended := make(chan int, 1)
	go func() {
		ended <- p.run(ctx, []string{"watch", "policies", "--insecure", "--server", listener.Addr().String(), "-o", "json"})
	}()
	select {
	case <-out.seen:
	case <-time.After(time.Minute):
		t.Error("the last change is not printed")
	}
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit code %d: %s", code, complaints.text.String())
	}
	want := `{"change":"PUT","name":"policies/a","etag":"1"}
{"change":"PUT","name":"policies/b","etag":"1"}
{"change":"PUT","name":"policies/c","etag":"1"}
{"change":"PUT","name":"policies/c","etag":"2"}
{"change":"DELETE","name":"policies/b"}
{"change":"PUT","name":"policies/d","etag":"1"}
{"change":"PUT","name":"policies/a","etag":"2"}
{"change":"DELETE","name":"policies/c"}
{"change":"PUT","name":"policies/a","etag":"3"}
{"change":"PUT","name":"policies/end","etag":"1"}
`
	if got := strings.ReplaceAll(out.text.String(), ", ", ","); got != want {
		t.Errorf("printed\n%s, want\n%s", got, want)
	}
	if got := strings.Join(b.tokens, " "); got != " 0 6 8 8" {
		t.Errorf("went on from %q", got)
	}
	if !strings.Contains(complaints.text.String(), "goes on: server is stopping") {
		t.Errorf("said %q", complaints.text.String())
	}
}
