package fleet

import (
	"errors"
	"slices"
	"time"
)

// drained is why a stream ended that the server asked to leave.
type drained struct{ servers []string }

func (*drained) Error() string { return errDrained.Error() }

func (*drained) Is(target error) bool { return target == errDrained } //nolint:errorlint // it is the sentinel itself

// move is to which of its servers an agent goes, and whether without a pause.
type move struct {
	at     int
	atOnce bool
}

// after returns where an agent goes when its stream has ended, as agents do: to a server that the one which asked it to
// leave named, if it is one of its own, else to the next, and last to those that are to be left alone.
func (a *Agent) after(before move, servers []string, lasted time.Duration, err error) move {
	next := move{at: a.following(servers, before.at)}
	asked, ok := errors.AsType[*drained](err)
	if !ok {
		return next
	}
	for i := range servers {
		at := (a.node + i) % len(servers)
		if at != before.at && a.heldFor(servers[at]) == 0 && slices.Contains(asked.servers, servers[at]) {
			next.at = at
			break
		}
	}
	next.atOnce = next.at != before.at && (lasted >= a.fleet.cfg.BackoffLast || !before.atOnce)
	return next
}
