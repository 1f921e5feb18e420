package main

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// maxMessage lets through a policy at the limits of the API: 10,000 rules with long lists.
const maxMessage = 256 << 20

// errNoTLS says what the operator can do in a version without TLS.
var errNoTLS = errors.New("--insecure: must be set: TLS is not in this version, so namewardctl talks to the server in plain text only; " +
	"use it over loopback or a tunnel")

// dialServer prepares a connection to the policy server. Nothing is sent until the first call.
func (p *program) dialServer() (*grpc.ClientConn, error) {
	if p.options.agent != "" {
		return nil, usagef("--agent: an agent does not serve this; ask the policy server with --server")
	}
	if !p.options.insecure {
		return nil, usageError{errNoTLS}
	}
	return p.dial("dns:///" + p.options.server)
}

// dialAgent prepares a connection to the agent's Unix socket, which file permissions protect.
func (p *program) dialAgent() (*grpc.ClientConn, error) {
	if p.options.agent == "" {
		return nil, usagef("--agent: must name the agent's Unix socket, such as /run/nameward/agent.sock")
	}
	return p.dial("unix:" + p.options.agent)
}

func (p *program) dial(target string) (*grpc.ClientConn, error) {
	connection, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
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
