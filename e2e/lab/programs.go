package lab

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// ServerAddress is where the policy server listens, on the node.
const ServerAddress = "127.0.0.1:7443"

// NodeName is what the agent calls its node.
const NodeName = "lab"

// StartServer starts the policy server on the node and waits until it serves.
func (l *Lab) StartServer(ctx context.Context, flags ...string) (*Process, error) {
	args := append([]string{"--insecure", "--listen", ServerAddress, "--data-dir", filepath.Join(l.Dir, "server")}, flags...)
	process, err := l.Start(ctx, l.Node, "nameward-server", filepath.Join(l.bin, "nameward-server"), args...)
	if err != nil {
		return nil, err
	}
	conn, err := l.DialServer()
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // asked once
	return process, process.await(ctx, "serves", func() error { return serving(ctx, conn, "") })
}

// StartAgent starts the agent on the node, trusting the world's resolvers, and waits until it is ready:
// rules and programs are in force, and, if the server runs, the server shows it connected and current.
func (l *Lab) StartAgent(ctx context.Context, flags ...string) (*Process, error) {
	process, err := l.StartAgentAlone(ctx, flags...)
	if err != nil {
		return nil, err
	}
	conn, err := l.DialServer()
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // asked until it answers
	return process, process.await(ctx, "is current", func() error { return l.Current(ctx, conn) })
}

// StartAgentAlone starts the agent like StartAgent, but waits for its own socket alone.
func (l *Lab) StartAgentAlone(ctx context.Context, flags ...string) (*Process, error) {
	program, args := l.Agent, append(l.AgentFlags(), flags...)
	if l.bootID != "" {
		program, args = l.asAfterReboot(program, args)
	}
	process, err := l.Start(ctx, l.Node, "nameward-agent", program, args...)
	if err != nil {
		return nil, err
	}
	conn, err := l.DialAgent()
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // asked until it answers
	// Whatever it may lack: an agent that knows that the rule set on its disk was damaged runs too.
	return process, process.await(ctx, "serves its socket", func() error { return serving(ctx, conn, liveness) })
}

// liveness is the service whose health says that the agent is there.
const liveness = "nameward.agent.v1.LocalService"

// AgentFlags returns the flags that keep the agent's files inside the lab.
func (l *Lab) AgentFlags() []string {
	return []string{
		"--insecure", "--server", ServerAddress, "--node-name", NodeName, "--label", "role=lab",
		"--state-dir", filepath.Join(l.Dir, "agent"), "--bpf-dir", l.BPFDir, "--socket", l.Socket(),
		"--trusted-resolver", ResolverV4.String(), "--trusted-resolver", ResolverV6.String(),
	}
}

// Socket is the agent's Unix socket.
func (l *Lab) Socket() string { return filepath.Join(l.Dir, "agent.sock") }

// eager has a client find a program as soon as it listens: by default one that did not at the first attempt
// is not tried again for a second, and then for longer.
var eager = grpc.WithConnectParams(grpc.ConnectParams{
	Backoff: backoff.Config{BaseDelay: pace, Multiplier: 1.25, MaxDelay: maxPace}, MinConnectTimeout: Patience,
})

// DialServer connects to the policy server from the node.
func (l *Lab) DialServer() (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+ServerAddress, eager, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			return l.Node.Dial("tcp", ServerAddress, time.Second)
		}))
}

// DialAgent connects to the agent's socket.
func (l *Lab) DialAgent() (*grpc.ClientConn, error) {
	return grpc.NewClient("unix://"+l.Socket(), eager, grpc.WithTransportCredentials(insecure.NewCredentials()))
}

// Current returns nil when the server shows the node connected and its wanted revision in force.
func (l *Lab) Current(ctx context.Context, conn *grpc.ClientConn) error {
	node, err := namewardv1.NewNodeServiceClient(conn).GetNode(ctx, &namewardv1.GetNodeRequest{Name: "nodes/" + NodeName})
	if err != nil {
		return err
	}
	status := node.GetStatus()
	if !status.GetConnected() || status.GetAppliedRevision() < status.GetWantedRevision() {
		return fmt.Errorf("node is not current: %v", status)
	}
	return nil
}

// Program returns the path of one of the programs under test.
func (l *Lab) Program(name string) string { return filepath.Join(l.bin, name) }

func serving(ctx context.Context, conn *grpc.ClientConn, service string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	response, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		return err
	}
	if response.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("health is %v", response.GetStatus())
	}
	return nil
}

// ReadLog returns what a process printed so far.
func (p *Process) ReadLog() string {
	log, _ := os.ReadFile(p.Log)
	return string(log)
}
