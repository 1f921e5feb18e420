package dataplane

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/nameward/nameward/dataplane/enforce"
)

// notifier tells a service manager how the start goes: sd_notify(3), a datagram to a Unix socket.
type notifier struct {
	socket string // empty: nobody asked
	state  func() (enforce.State, <-chan struct{})
	log    *slog.Logger
}

// run says READY once enforcement is in force, and STOPPING when the agent ends. What waits for the agent at
// a boot, as the network does, begins no earlier.
func (n *notifier) run(ctx context.Context) error {
	if n.socket == "" {
		return nil
	}
	for {
		state, changed := n.state()
		if state.HooksErr == nil && state.Refusal == nil {
			break
		}
		n.tell("STATUS=" + strings.ReplaceAll(notInForce(state), "\n", " "))
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
	n.tell("READY=1\nSTATUS=what is enforced is in force")
	<-ctx.Done()
	n.tell("STOPPING=1\nSTATUS=what is in force stays in force")
	return nil
}

func notInForce(state enforce.State) string {
	if state.HooksErr != nil {
		return state.HooksErr.Error()
	}
	return fmt.Sprintf("revision %d is not in force: %v", state.Refusal.Revision.Number, state.Refusal.Err)
}

// tell reports what fails and goes on: a service manager that does not hear ends the start by itself.
func (n *notifier) tell(message string) {
	conn, err := net.Dial("unixgram", n.socket)
	if err == nil {
		_, err = conn.Write([]byte(message))
		_ = conn.Close() // all was said
	}
	if err != nil {
		n.log.Warn("service manager not told", "err", err)
	}
}
