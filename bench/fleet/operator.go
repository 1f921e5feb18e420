package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// policyOf is a policy that is about 200 bytes long on its way to a node.
func policyOf(i, version int) *namewardv1.Policy {
	domains := make([]string, 4)
	for d := range domains {
		domains[d] = fmt.Sprintf("%c-%05d.service-%04d.example.com", 'a'+d, version, i)
	}
	return &namewardv1.Policy{
		Name: fmt.Sprintf("policies/policy-%05d", i),
		Rules: []*namewardv1.Rule{{
			Action: namewardv1.Rule_ALLOW, Domains: domains,
			Ports: []*namewardv1.Port{{Protocol: namewardv1.Protocol_TCP, Port: 443}},
		}},
	}
}

func (s *server) put(ctx context.Context, p *namewardv1.Policy) error {
	_, err := s.policies.UpdatePolicy(ctx, &namewardv1.UpdatePolicyRequest{Policy: p, AllowMissing: true})
	if err != nil {
		return fmt.Errorf("write policy: %w", err)
	}
	return nil
}

// writers is how many operators write at once where much is written.
const writers = 64

// putMany writes count policies of a number of names, the last version of each last.
func (s *server) putMany(ctx context.Context, names, first, count int) error {
	g, ctx := errgroup.WithContext(ctx)
	for w := range writers {
		g.Go(func() error {
			for i := first + w; i < first+count; i += writers {
				if err := s.put(ctx, policyOf(i%names, i/names)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait() //nolint:wrapcheck // says what it did
}

const domainsAMessage = 10_000

// replace puts the domains of a set.
func (s *server) replace(ctx context.Context, name string, domains []string) error {
	stream, err := s.sets.ReplaceDomains(ctx)
	if err != nil {
		return fmt.Errorf("replace domains: %w", err)
	}
	for first := true; first || len(domains) > 0; first = false {
		request := &namewardv1.ReplaceDomainsRequest{}
		if first {
			request.Name, request.AllowMissing = name, true
		}
		n := min(len(domains), domainsAMessage)
		request.Domains, domains = domains[:n], domains[n:]
		if err := stream.Send(request); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("replace domains: %w", err)
		}
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		return fmt.Errorf("replace domains: %w", err)
	}
	return nil
}

func manyDomains(count int, suffix string) []string {
	domains := make([]string, count)
	for i := range domains {
		domains[i] = fmt.Sprintf("host-%07d.%s.example", i, suffix)
	}
	return domains
}
