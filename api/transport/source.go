package transport

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"
)

// fetchTimeout is what a Workload API gets to answer where somebody waits for it.
const fetchTimeout = 5 * time.Second

// ErrNoMaterial says that there are no certificates yet.
var ErrNoMaterial = errors.New("there is no certificate yet")

// Source holds the newest good certificates. What comes later and is broken leaves them in force.
type Source struct {
	cfg Config
	end end
	log *slog.Logger
	// said are the ends of certificates that were logged, files what was seen of files; of Load, then of Run.
	said  map[string]bool
	files files

	mu      sync.Mutex // guards all below
	current *Material
	// fault is why the newest is not in force; nil when it is.
	fault             error
	reloads, failures uint64
}

// NewServerSource returns the source of a server's valid configuration. It has nothing before Load or Run.
func NewServerSource(cfg Config, log *slog.Logger) *Source { return newSource(cfg, serverEnd, log) }

// NewClientSource returns the source of a client's.
func NewClientSource(cfg Config, log *slog.Logger) *Source { return newSource(cfg, clientEnd, log) }

func newSource(cfg Config, end end, log *slog.Logger) *Source {
	return &Source{cfg: cfg, end: end, log: log, said: map[string]bool{}, fault: ErrNoMaterial}
}

// Load reads the certificates once, before Run. Without any, Run goes on all the same.
func (s *Source) Load(ctx context.Context) error {
	// Before they are read: what changes meanwhile is read again.
	s.files.seen = s.cfg.marks()
	m, err := s.cfg.load(ctx, s.end)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.fault = err
		s.failures++
		return err
	}
	s.take(m, nil)
	return nil
}

// LoadClient returns the certificates of a client as they are now.
func (c Config) LoadClient(ctx context.Context) (*Material, error) { return c.load(ctx, clientEnd) }

func (c Config) load(ctx context.Context, end end) (*Material, error) {
	if c.SPIFFESocket == "" {
		return c.loadFiles(end)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	return c.fetch(ctx, end)
}

// Run takes up what is new until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	if s.cfg.SPIFFESocket == "" {
		return s.watchFiles(ctx)
	}
	return s.watchWorkload(ctx)
}

// Current returns what is in force, and why the newest is not, if it is not; nil when there is nothing.
func (s *Source) Current() (*Material, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current, s.fault
}

// take puts a material in force, or keeps the one before.
func (s *Source) take(m *Material, err error) {
	s.mu.Lock()
	before := s.current
	if s.fault = err; err == nil {
		s.current = m
		s.reloads++
	} else {
		s.failures++
	}
	s.mu.Unlock()
	switch {
	case err != nil && before == nil:
		s.log.Error("no certificate", "err", err)
	case err != nil:
		s.log.Error("certificate not renewed, the one before stays in force", "err", err, "expires", inUTC(before.Expiry()))
	default:
		s.log.Info("certificate in force", "identity", m.name(), "expires", inUTC(m.Expiry()), "ca_expires", inUTC(m.AuthorityExpiry()))
	}
}

// sayExpiry logs each end that is near, and each that is past, once.
func (s *Source) sayExpiry(now time.Time) {
	m, _ := s.Current()
	if m == nil {
		return
	}
	for _, concern := range s.cfg.concerns(m, now) {
		if key := concern.key(); !s.said[key] {
			s.said[key] = true
			s.log.Warn("certificate ends", "detail", concern.text)
		}
	}
}

// Faults returns what is wrong with the certificates now, each with its remedy.
func (s *Source) Faults(now time.Time) []string {
	m, err := s.Current()
	var faults []string
	switch {
	case m == nil && err != nil:
		faults = append(faults, "no certificate: "+err.Error()+". Remedy: "+s.cfg.Remedy())
	case err != nil:
		faults = append(faults, "the certificate is not renewed, the one before stays in force: "+err.Error()+". Remedy: "+s.cfg.Remedy())
	}
	if m != nil {
		for _, concern := range s.cfg.concerns(m, now) {
			faults = append(faults, concern.text)
		}
	}
	return faults
}

// Remedy says what to do about certificates that cannot be had.
func (c Config) Remedy() string {
	if c.SPIFFESocket != "" {
		return "see that the SPIFFE agent serves its Workload API at " + c.SPIFFESocket + " and has an entry for this program"
	}
	return "put a certificate and its key at " + c.CertFile + " and " + c.KeyFile + ", and its CAs at " + c.ca() + ": they are taken up by themselves"
}

// Stats returns how often certificates were put in force, and how often new ones were broken.
func (s *Source) Stats() (reloads, failures uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reloads, s.failures
}
