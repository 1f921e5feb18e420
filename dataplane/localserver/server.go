// Package localserver answers for one node on a Unix socket that only root may open, without the policy
// server: how the agent does, what the node's live mappings are, what was denied or audited, and what would become
// of a connection.
// It reads what the other stages hold and changes nothing.
package localserver

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/observe"
)

// Agent says how the agent does.
type Agent interface {
	Status() *agentv1.GetStatusResponse
	// Rules returns the rule set in force; nil for none.
	Rules() *ruleset.RuleSet
	// Degraded returns the faults that persist, and a channel that closes when they may have changed.
	Degraded() ([]string, <-chan struct{})
	// TakeIn has what the kernel told until now in the tables: events gather for a moment otherwise.
	TakeIn()
}

// Server is the agent's socket.
type Server struct {
	agentv1.UnimplementedLocalServiceServer
	socket string
	node   node.ID
	agent  Agent
	table  *observe.Table
	flows  *observe.Flows
	log    *slog.Logger

	addresses Addresses
}

// New makes a server; nothing listens before Run.
func New(socket string, id node.ID, agent Agent, addresses Addresses, table *observe.Table, flows *observe.Flows, log *slog.Logger) *Server {
	return &Server{socket: socket, node: id, agent: agent, table: table, flows: flows, log: log, addresses: addresses}
}

// Run serves until ctx ends, and removes the socket.
func (s *Server) Run(ctx context.Context) error {
	listener, err := listen(ctx, s.socket)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", s.socket, err)
	}
	server := grpc.NewServer()
	agentv1.RegisterLocalServiceServer(server, s)
	health := health.NewServer()
	healthv1.RegisterHealthServer(server, health)
	reflection.Register(server)
	s.sayHealth(health) // before anybody can ask
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	s.log.Info("listening", "socket", s.socket)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.keepHealth(ctx, health) })
	group.Go(func() error {
		if err := server.Serve(listener); err != nil && ctx.Err() == nil {
			return fmt.Errorf("serve %s: %w", s.socket, err)
		}
		return nil
	})
	return group.Wait() //nolint:wrapcheck // says what it did
}

// listen takes over the socket of an agent that is gone.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the socket has its own mode
		return nil, fmt.Errorf("make directory: %w", err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, errors.New("another agent serves it")
	}
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var modeErr error
		// The mode of the open socket becomes that of its file: at no moment may others open it.
		err := raw.Control(func(fd uintptr) { modeErr = unix.Fchmod(int(fd), 0o600) }) //nolint:gosec // a descriptor
		return errors.Join(err, modeErr)
	}}
	return config.Listen(ctx, "unix", path) //nolint:wrapcheck // Run says what
}

// Remove removes what an agent that was killed left of its socket, and names it.
func Remove(path string) ([]string, error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	return []string{path}, nil
}

// removeSocket removes no file of another kind: a mistyped path must not cost one.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is no socket", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("remove socket: %w", err)
	}
	return nil
}

// GetStatus says how the agent does.
func (s *Server) GetStatus(context.Context, *agentv1.GetStatusRequest) (*agentv1.GetStatusResponse, error) {
	return s.agent.Status(), nil
}
