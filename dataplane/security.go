package dataplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/transport"
)

// security is how the agent and its policy servers know each other. Without certificates the agent enforces all the
// same, and says what it lacks.
type security struct {
	source   *transport.Source // nil with plain text
	refusals *transport.Refusals
	node     node.ID
	loaded   chan struct{} // closes when certificates were looked for once
	log      *slog.Logger
}

func newSecurity(cfg Config, id node.ID, log *slog.Logger) *security {
	s := &security{refusals: transport.NewRefusals(log), node: id, loaded: make(chan struct{}), log: log}
	if !cfg.Insecure {
		s.source = transport.NewClientSource(cfg.TLS, log)
	}
	return s
}

func (s *security) credentials() credentials.TransportCredentials {
	if s.source == nil {
		return insecure.NewCredentials()
	}
	return transport.NewClientCredentials(s.source, s.refusals)
}

// run loads certificates and takes up new ones until ctx ends.
func (s *security) run(ctx context.Context) error {
	if s.source == nil {
		close(s.loaded)
		<-ctx.Done()
		return nil
	}
	err := s.source.Load(ctx)
	close(s.loaded)
	if err != nil {
		s.log.Error("no certificate, the last rule set stays in force", "err", err)
	} else if m, _ := s.source.Current(); s.misnamed(m) != nil {
		s.log.Error("the certificate is not that of this node", "err", s.misnamed(m))
	}
	return s.source.Run(ctx) //nolint:wrapcheck // it says what it did
}

// await waits until certificates were looked for once, so that the first connection has them.
func (s *security) await(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-s.loaded:
	}
}

// current returns the certificates in force; nil for none.
func (s *security) current() *transport.Material {
	if s == nil || s.source == nil {
		return nil
	}
	m, _ := s.source.Current()
	return m
}

// faults returns what keeps the agent from its servers, or soon will, each with its remedy.
func (s *security) faults(now time.Time) []string {
	if s == nil || s.source == nil {
		return nil
	}
	select {
	case <-s.loaded:
	default:
		return nil // they are just being looked for
	}
	faults := s.source.Faults(now)
	if m := s.current(); m != nil {
		if err := s.misnamed(m); err != nil {
			faults = append(faults, fmt.Sprintf("%v. Remedy: %s", err, misnamedRemedy))
		}
	}
	return faults
}

const misnamedRemedy = "give the node a certificate of its own (`namewardctl pki issue --role node --name NODE`), or set --node-name as the certificate says"

var errMisnamed = errors.New("the certificate is not that of this node, and no policy server will take it")

// misnamed returns why the certificate is not that of this node; nil when it is.
func (s *security) misnamed(m *transport.Material) error {
	if name, ok := nodeNameOf(m); !ok || name != s.node.String() {
		return fmt.Errorf("%w: it is of %s, and the node is %s", errMisnamed, m.ID, s.node)
	}
	return nil
}

// nodeNameOf returns the node that certificates are of.
func nodeNameOf(m *transport.Material) (string, bool) {
	role, name, ok := m.ID.Named()
	return name, ok && role == identity.Node
}

// expiry returns when the certificate ends; nil for none.
func (s *security) expiry() *timestamppb.Timestamp {
	if m := s.current(); m != nil {
		return timestamppb.New(m.Expiry())
	}
	return nil
}

// CertifiedNodeName returns the node that the certificate is of, empty where there is none.
func (c Config) CertifiedNodeName(ctx context.Context) (string, error) {
	if c.Insecure || !c.TLS.IsSet() {
		return "", nil
	}
	m, err := c.TLS.LoadClient(ctx)
	if err != nil {
		return "", err //nolint:wrapcheck // it says what
	}
	name, _ := nodeNameOf(m)
	return name, nil
}
