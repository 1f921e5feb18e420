package subscribe

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// drained is why a stream ended that the server asked to leave.
type drained struct {
	servers []string // where it says to go, as they are advertised
}

func (*drained) Error() string { return errDrained.Error() }

func (*drained) Is(target error) bool { return target == errDrained } //nolint:errorlint // it is the sentinel itself

// move is where the node goes when a stream has ended, and how.
type move struct {
	server string
	// atOnce says that the node goes without the time that it waits after a failure: the server that asked it to
	// leave has spread the nodes over the time that it gave them.
	atOnce bool
}

// after returns the move that follows a stream, which itself was begun by the move before and ended with err. Servers
// that are to be left alone still come last.
func (s *Subscriber) after(before move, lasted time.Duration, err error, now time.Time) move {
	asked, ok := errors.AsType[*drained](err)
	if !ok {
		if errors.Is(err, errReturn) {
			return move{server: s.servers[0]}
		}
		return move{server: s.following(before.server, now)}
	}
	next := s.offered(before.server, asked.servers, now)
	// Servers that all ask to leave, as soon as the node comes, are not to be asked without pause.
	return move{next, next != before.server && (lasted >= settledAfter || !before.atOnce)}
}

// following returns the first server behind one in the node's order that is not to be left alone, or the one that is for
// the shortest time.
func (s *Subscriber) following(server string, now time.Time) string {
	from := slices.Index(s.servers, server) + 1
	behind := slices.Concat(s.servers[from:], s.servers[:from])
	return slices.MinFunc(behind, func(a, b string) int { return cmp.Compare(s.holds.left(a, now), s.holds.left(b, now)) })
}

// offered returns the first of the node's servers but one that is advertised as one to go to and not to be left alone, or,
// if none is, the one that follows. A server that the node's configuration does not name is never gone to.
func (s *Subscriber) offered(leaves string, advertised []string, now time.Time) string {
	for _, server := range s.servers {
		if server != leaves && s.holds.left(server, now) == 0 && slices.ContainsFunc(advertised, func(text string) bool { return s.resolver.isAt(server, text) }) {
			return server
		}
	}
	return s.following(leaves, now)
}

// isAt reports whether a server, as the configuration names it, is known to be at an address as it is advertised.
func (r *resolver) isAt(server, advertised string) bool {
	if strings.EqualFold(server, advertised) {
		return true
	}
	address, err := netip.ParseAddrPort(advertised)
	if err != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Contains(r.known[server], netip.AddrPortFrom(address.Addr().Unmap(), address.Port()))
}

// Ended counts streams, and attempts to open one, by why they ended.
type Ended struct {
	// Asked were those that the server asked to leave; AtOnce of these went to another server without a pause.
	Asked, AtOnce uint64
	// Returned left for the node's own server, Lost were open and broke, Failed were never open.
	Returned, Lost, Failed uint64
	// Hints is how often a server said when to come again.
	Hints uint64
}

// Ended returns the counts.
func (s *Subscriber) Ended() Ended {
	s.mu.Lock()
	defer s.mu.Unlock()
	ended := s.ended
	ended.Hints = s.holds.hints()
	return ended
}

// count counts a stream that ended with err.
func (s *Subscriber) count(err error, next move, opened bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, errDrained):
		s.ended.Asked++
		if next.atOnce {
			s.ended.AtOnce++
		}
	case errors.Is(err, errReturn):
		s.ended.Returned++
	case opened:
		s.ended.Lost++
	default:
		s.ended.Failed++
	}
}
