package main

import (
	"context"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/nameward/nameward/api/transport"
)

// maxMessage lets through a policy at the limits of the API: 10,000 rules with long lists.
const maxMessage = 256 << 20

// dialServer prepares a connection to the policy server. Nothing is sent until the first call.
func (p *program) dialServer() (*grpc.ClientConn, error) {
	if p.options.agent != "" {
		return nil, usagef("--agent: an agent does not serve this; ask the policy server with --server")
	}
	if err := p.options.validateConnection(); err != nil {
		return nil, err
	}
	if p.options.insecure {
		return p.dial("dns:///"+p.options.server, insecure.NewCredentials())
	}
	// What it would log is in the error that the call ends with.
	log := slog.New(slog.DiscardHandler)
	source := transport.NewClientSource(p.options.tls, log)
	if err := source.Load(context.Background()); err != nil {
		return nil, err //nolint:wrapcheck // it says what
	}
	return p.dial("dns:///"+p.options.server, transport.NewClientCredentials(source, transport.NewRefusals(log)))
}

// dialAgent prepares a connection to the agent's Unix socket, which file permissions protect.
func (p *program) dialAgent() (*grpc.ClientConn, error) {
	if p.options.agent == "" {
		return nil, usagef("--agent: must name the agent's Unix socket, such as /run/nameward/agent.sock")
	}
	return p.dial("unix:"+p.options.agent, insecure.NewCredentials())
}

func (p *program) dial(target string, credentials credentials.TransportCredentials) (*grpc.ClientConn, error) {
	connection, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(credentials),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithUnaryInterceptor(p.limitTime),
	)
	if err != nil {
		return nil, usagef("connect: %w", err)
	}
	return connection, nil
}

// limitTime bounds each call by --timeout. Streams are not bounded: a watch lasts.
func (p *program) limitTime(ctx context.Context, method string, request, reply any, connection *grpc.ClientConn,
	invoke grpc.UnaryInvoker, options ...grpc.CallOption,
) error {
	ctx, cancel := context.WithTimeout(ctx, p.options.timeout)
	defer cancel()
	return invoke(ctx, method, request, reply, connection, options...)
}
