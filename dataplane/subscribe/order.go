package subscribe

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

const (
	// returnAfter is when a node that had to go elsewhere first looks after the server that is its own; up to
	// twice that, at random.
	returnAfter  = 5 * time.Minute
	probeTimeout = 5 * time.Second
)

var errReturn = errors.New("the node's own server answers again")

// order returns the servers in the order in which a node tries them. Each node has an order of its own, the
// same at each start: so a fleet spreads over its servers, and what one of them had spreads over the others
// when it is gone.
func order(node string, servers []string) []string {
	rank := func(server string) []byte {
		sum := sha256.Sum256([]byte(node + "\x00" + server))
		return sum[:]
	}
	ordered := slices.Clone(servers)
	slices.SortStableFunc(ordered, func(a, b string) int { return bytes.Compare(rank(a), rank(b)) })
	return ordered
}

// goHome ends a stream to another server once the node's own answers.
func (s *Subscriber) goHome(ctx context.Context, server string, leave context.CancelCauseFunc) error {
	home := s.servers[0]
	if server == home {
		return nil
	}
	after := cmp.Or(s.cfg.ReturnAfter, returnAfter)
	for pause(ctx, after+rand.N(after)) {
		if s.holds.left(home, time.Now()) == 0 && s.answers(ctx, home) {
			leave(errReturn)
			return nil
		}
	}
	return nil
}

// answers asks a server for its health. A connection alone does not say that it lives.
func (s *Subscriber) answers(ctx context.Context, server string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := s.client(ctx, server)
	if err != nil {
		return false
	}
	defer conn.Close()
	response, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if status.Code(err) == codes.Unimplemented {
		return true // it has said so
	}
	return err == nil && response.GetStatus() == healthv1.HealthCheckResponse_SERVING
}
