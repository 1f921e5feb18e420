package transport

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// sayInterval is how often the ends of certificates are looked at that a Workload API brought.
const sayInterval = time.Minute

func (c Config) newClient(ctx context.Context) (*workloadapi.Client, error) {
	client, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+c.SPIFFESocket))
	if err != nil {
		return nil, fmt.Errorf("SPIFFE Workload API at %s: %w", c.SPIFFESocket, err)
	}
	return client, nil
}

// fetch asks the Workload API once.
func (c Config) fetch(ctx context.Context, end end) (*Material, error) {
	client, err := c.newClient(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close() //nolint:errcheck // asked once
	answer, err := client.FetchX509Context(ctx)
	if err != nil {
		return nil, fmt.Errorf("SPIFFE Workload API at %s: %w", c.SPIFFESocket, err)
	}
	return c.fromWorkload(end, answer)
}

// fromWorkload takes the first identity that the Workload API has for this program, which is the default one.
func (c Config) fromWorkload(end end, answer *workloadapi.X509Context) (*Material, error) {
	if len(answer.SVIDs) == 0 {
		return nil, fmt.Errorf("SPIFFE Workload API at %s: it has no identity for this program", c.SPIFFESocket)
	}
	svid := answer.DefaultSVID()
	domain := svid.ID.TrustDomain()
	if c.TrustDomain != "" {
		var err error
		if domain, err = spiffeid.TrustDomainFromString(c.TrustDomain); err != nil {
			return nil, fmt.Errorf("trust domain: %w", err)
		}
	}
	bundle, ok := answer.Bundles.Get(domain)
	if !ok || len(bundle.X509Authorities()) == 0 {
		return nil, fmt.Errorf("SPIFFE Workload API at %s: it has no CAs of the trust domain %s", c.SPIFFESocket, domain)
	}
	certificate := tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, one := range svid.Certificates {
		certificate.Certificate = append(certificate.Certificate, one.Raw)
	}
	return c.newMaterial(end, certificate, bundle.X509Authorities())
}

// watchWorkload follows the Workload API until ctx ends. The client itself connects anew, after a time that grows.
func (s *Source) watchWorkload(ctx context.Context) error {
	client, err := s.cfg.newClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close() //nolint:errcheck // nothing is asked any more
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		watcher := &workloadWatcher{source: s}
		for again := true; again; again = pause(ctx, sayInterval) {
			// It ends when the API itself says that there will be nothing, which the watcher has told of.
			_ = client.WatchX509Context(ctx, watcher)
		}
		return nil
	})
	group.Go(func() error {
		for again := true; again; again = pause(ctx, sayInterval) {
			s.sayExpiry(time.Now())
		}
		return nil
	})
	return group.Wait() //nolint:wrapcheck // there is none
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// workloadWatcher hands on what the Workload API says. A fault that repeats is one.
type workloadWatcher struct {
	source *Source
	failed string
}

// OnX509ContextUpdate implements workloadapi.X509ContextWatcher.
func (w *workloadWatcher) OnX509ContextUpdate(answer *workloadapi.X509Context) {
	w.failed = ""
	m, err := w.source.cfg.fromWorkload(w.source.end, answer)
	if before, fault := w.source.Current(); err == nil && fault == nil && m.same(before) {
		return
	}
	w.source.take(m, err)
}

// OnX509ContextWatchError implements workloadapi.X509ContextWatcher.
func (w *workloadWatcher) OnX509ContextWatchError(err error) {
	if w.failed == err.Error() || status.Code(err) == codes.Canceled {
		return
	}
	w.failed = err.Error()
	w.source.take(nil, fmt.Errorf("SPIFFE Workload API at %s: %w", w.source.cfg.SPIFFESocket, err))
}
