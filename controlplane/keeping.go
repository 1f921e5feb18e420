package controlplane

import (
	"log/slog"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"github.com/nameward/nameward/controlplane/access"
	"github.com/nameward/nameward/controlplane/audit"
	"github.com/nameward/nameward/controlplane/store"
)

// keeping is what stands before the API and keeps on record who did what with it.
type keeping struct {
	roles *access.Roles
	guard *access.Guard
	audit *audit.Log
}

// openAccess opens the audit log, which from then on has every change of the store.
func openAccess(cfg Config, s *store.Store, log *slog.Logger) (*keeping, error) {
	k := &keeping{roles: access.ByConvention()}
	if cfg.RolesFile != "" {
		var err error
		if k.roles, err = access.RolesFile(cfg.RolesFile, log.With("component", "access")); err != nil {
			return nil, err //nolint:wrapcheck // says what it did
		}
	}
	var err error
	k.audit, err = audit.Open(audit.Config{Dir: audit.DirOf(cfg.DataDir), MaxBytes: cfg.AuditFileSize, MaxFiles: cfg.AuditFiles}, s, log.With("component", "audit"))
	if err != nil {
		return nil, err //nolint:wrapcheck // says what it did
	}
	s.RecordIn(k.audit)
	k.guard = access.NewGuard(k.roles, cfg.Insecure, k.audit, log.With("component", "access"))
	return k, nil
}

func (k *keeping) collectors() []prometheus.Collector {
	return slices.Concat(k.guard.Collectors(), k.audit.Collectors())
}

func (k *keeping) close() error { return k.audit.Close() } //nolint:wrapcheck // says what it did

func (c *Config) bindAccess(flags *pflag.FlagSet) {
	flags.StringVar(&c.RolesFile, "roles-file", c.RolesFile, "YAML file with the roles of identities; empty: spiffe://DOMAIN/ROLE/NAME has the role ROLE")
	flags.Int64Var(&c.AuditFileSize, "audit-file-size", c.AuditFileSize, "bytes from which on a file of the audit log is left for another")
	flags.IntVar(&c.AuditFiles, "audit-files", c.AuditFiles, "files of the audit log that are kept; the oldest goes first")
	flags.IntVar(&c.MaxConnections, "max-connections", c.MaxConnections, "connections to the API at once; over it new ones are closed")
}

// Below these a single event could fill a file, and a flood of changes would leave no trace of what was before.
const minAuditFileSize, minAuditFiles = 4 << 10, 2

// validateAccess says what is wrong with who may do what, and with what is kept of it.
func (c Config) validateAccess(fault func(flag, format string, args ...any)) {
	if c.RolesFile != "" && c.Insecure {
		fault("roles-file", "is %q, and without TLS nobody has an identity: leave out one of --roles-file and --insecure", c.RolesFile)
	}
	if c.AuditFileSize < minAuditFileSize {
		fault("audit-file-size", "%d is below %d", c.AuditFileSize, minAuditFileSize)
	}
	if c.AuditFiles < minAuditFiles {
		fault("audit-files", "%d is below %d", c.AuditFiles, minAuditFiles)
	}
	if c.MaxConnections < 1 {
		fault("max-connections", "%d is below 1", c.MaxConnections)
	}
}
