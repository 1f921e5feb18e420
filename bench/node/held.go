package node

import (
	"context"
	"errors"
	"slices"
	"time"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

var errHeld = errors.New("the agent does not come to hold what it should")

// awaitHeld asks the agent ten times a second how many mappings it holds, until that is enough.
func (s *site) awaitHeld(ctx context.Context, enough func(held int) bool, seen func(at time.Time, held int)) error {
	conn, err := s.DialAgent()
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // it was only asked
	local := agentv1.NewLocalServiceClient(conn)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(2 * patience); time.Now().Before(limit); {
		status, err := local.GetStatus(ctx, &agentv1.GetStatusRequest{})
		if err != nil {
			return err
		}
		held := int(status.GetLiveMappings()) //nolint:gosec // a count
		if seen != nil {
			seen(time.Now(), held)
		}
		if enough(held) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return errHeld
}

func sortedTimes(times []time.Time) []time.Time {
	sorted := slices.Clone(times)
	slices.SortFunc(sorted, time.Time.Compare)
	return sorted
}
