package subscribe

import (
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

// after returns the move that follows a stream, which itself was begun by the move before and ended with err.
func (s *Subscriber) after(before move, lasted time.Duration, err error) move {
	asked, ok := errors.AsType[*drained](err)
	if !ok {
		if errors.Is(err, errReturn) {
			return move{server: s.servers[0]}
		}
		return move{server: s.following(before.server)}
	}
	next := s.offered(before.server, asked.servers)
	// Servers that all ask to leave, as soon as the node comes, are not to be asked without pause.
	return move{next, next != before.server && (lasted >= settledAfter || !before.atOnce)}
}

// following returns the server behind one in the node's order.
func (s *Subscriber) following(server string) string {
	return s.servers[(slices.Index(s.servers, server)+1)%len(s.servers)]
}

// offered returns the first of the node's servers but one that is advertised as one to go to, or, if none is, the one
// that follows. A server that the node's configuration does not name is never gone to.
func (s *Subscriber) offered(leaves string, advertised []string) string {
	for _, server := range s.servers {
		if server != leaves && slices.ContainsFunc(advertised, func(text string) bool { return s.resolver.isAt(server, text) }) {
			return server
		}
	}
	return s.following(leaves)
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
}

// Ended returns the counts.
func (s *Subscriber) Ended() Ended {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
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
