package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

const resumeFirst, resumeLast = 100 * time.Millisecond, 5 * time.Second

// watchPolicies prints policies as they change. A stream that breaks goes on, at whichever server answers, where it broke:
// each change is printed once, also where the server has to begin with all that there is.
func (p *program) watchPolicies(ctx context.Context, connection *grpc.ClientConn) error {
	w := &policyWatch{print: p, lines: &lineTable{
		header: []string{"CHANGE", "NAME", "MODE", "PRIORITY", "RULES"}, widths: []int{6, 32, 8},
	}, known: map[string]string{}}
	client := namewardv1.NewPolicyServiceClient(connection)
	for wait := resumeFirst; ; wait = min(2*wait, resumeLast) {
		heard, err := w.follow(ctx, client)
		switch {
		case ctx.Err() != nil:
			return nil
		case status.Code(err) != codes.Unavailable || w.token == "":
			return err
		case heard:
			wait = resumeFirst
			p.complain("the watch broke, and goes on: " + status.Convert(err).Message())
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
		connection.ResetConnectBackoff()
	}
}

// policyWatch is what has been printed.
type policyWatch struct {
	print   *program
	lines   *lineTable
	printed int
	// token is where to go on; empty before anything came.
	token string
	// known has the etag of each policy as it was printed; met those of the snapshot that is coming, nil for none.
	known map[string]string
	met   map[string]bool
}

// follow prints the changes of one stream until it ends, and reports whether it began.
func (w *policyWatch) follow(ctx context.Context, client namewardv1.PolicyServiceClient) (heard bool, err error) {
	if w.token == "" {
		w.met = map[string]bool{}
	}
	stream, err := client.WatchPolicies(ctx, &namewardv1.WatchPoliciesRequest{ResumeToken: w.token})
	for err == nil {
		var response *namewardv1.WatchPoliciesResponse
		if response, err = stream.Recv(); err != nil {
			break
		}
		heard = true
		if err = w.take(response); err == nil {
			w.token = response.GetResumeToken()
		}
	}
	if errors.Is(err, io.EOF) {
		err = errWatchEnded
	}
	return heard, err //nolint:wrapcheck // of the stream, or it says what
}

// take prints what a response has of news.
func (w *policyWatch) take(response *namewardv1.WatchPoliciesResponse) error {
	if response.GetReset_() {
		w.met = map[string]bool{}
	}
	policy := response.GetPolicy()
	name := policy.GetName()
	switch etag, was := w.known[name]; response.GetChange() {
	case namewardv1.WatchPoliciesResponse_PUT:
		if w.met != nil {
			w.met[name] = true
			if was && etag == policy.GetEtag() {
				return nil // it was printed before the watch broke
			}
		}
		w.known[name] = policy.GetEtag()
		return w.say(policyChange(response))
	case namewardv1.WatchPoliciesResponse_DELETE:
		if was {
			delete(w.known, name)
			return w.say(policyChange(response))
		}
	case namewardv1.WatchPoliciesResponse_CHANGE_UNSPECIFIED:
	}
	if response.GetSynced() {
		return w.settle()
	}
	return nil
}

// settle says of what a snapshot lacks that it is gone.
func (w *policyWatch) settle() error {
	for _, name := range slices.Sorted(maps.Keys(w.known)) {
		if w.met[name] || w.met == nil {
			continue
		}
		delete(w.known, name)
		gone := &namewardv1.WatchPoliciesResponse{Change: namewardv1.WatchPoliciesResponse_DELETE, Policy: &namewardv1.Policy{Name: name}}
		if err := w.say(policyChange(gone)); err != nil {
			return err
		}
	}
	w.met = nil
	return nil
}

func (w *policyWatch) say(told *change) error {
	w.printed++
	return w.print.printChange(told, w.printed-1, w.lines)
}
