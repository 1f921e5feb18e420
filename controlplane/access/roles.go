package access

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/nameward/nameward/api/identity"
)

const (
	// rolesInterval is how often the file is looked at. It is read anew when it is another one, not when it was touched.
	rolesInterval = 2 * time.Second
	// maxRolesFile bounds what is read of it.
	maxRolesFile = 4 << 20
)

// allDNSNames is an entry for every identity that is a DNS name.
const allDNSNames = "dns:*"

// Roles says which role an identity has: by the convention `spiffe://DOMAIN/ROLE/NAME`, or by a file. It is safe for
// concurrent use.
type Roles struct {
	path   string // empty for the convention
	log    *slog.Logger
	grants atomic.Pointer[[]grant]
	// changed is called when other roles are in force. It is set before Run.
	changed func()
	// read and fault are of Run: what was last looked at, and what was wrong with it.
	read  []byte
	fault string

	reloads, faults atomic.Uint64
	faulty          atomic.Bool
}

// grant gives identities a role.
type grant struct {
	id     identity.ID
	prefix string // instead of id: all that begin with it
	role   identity.Role
}

// ByConvention returns roles without a file.
func ByConvention() *Roles { return &Roles{} }

// RolesFile reads a file of roles. It must be good at the start; see Run for what becomes of it later.
func RolesFile(path string, log *slog.Logger) (*Roles, error) {
	r := &Roles{path: path, log: log}
	text, err := readRolesFile(path)
	if err != nil {
		return nil, err
	}
	grants, err := parseRoles(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	r.read = text
	r.grants.Store(&grants)
	return r, nil
}

// Of returns the role of an identity, empty for none. In a file the first entry that matches decides.
func (r *Roles) Of(id identity.ID) identity.Role {
	grants := r.grants.Load()
	if grants == nil {
		role, _, _ := id.Named()
		return role
	}
	text := id.String()
	for _, g := range *grants {
		if g.prefix != "" && strings.HasPrefix(text, g.prefix) || g.prefix == "" && g.id == id {
			return g.role
		}
	}
	return ""
}

// Run reads the file again when it changes, until ctx ends. One that cannot be read, or has a fault, leaves the last
// good one in force, and is logged once.
func (r *Roles) Run(ctx context.Context) error {
	if r.path == "" {
		return nil
	}
	ticker := time.NewTicker(rolesInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
			r.Reload()
		}
	}
}

// Reload looks at the file once. It is not to be called while Run runs.
func (r *Roles) Reload() {
	text, err := readRolesFile(r.path)
	if err == nil && bytes.Equal(text, r.read) {
		// Also when a fault was mended by putting back what is in force.
		r.settle(nil)
		return
	}
	var grants []grant
	if err == nil {
		grants, err = parseRoles(text)
	}
	if err == nil {
		r.read = text
		r.grants.Store(&grants)
		r.reloads.Add(1)
		r.log.Info("roles read", "path", r.path, "entries", len(grants))
		if r.changed != nil {
			r.changed()
		}
	}
	r.settle(err)
}

// settle keeps what is wrong with the file now. Each fault is told once.
func (r *Roles) settle(err error) {
	fault := ""
	if err != nil {
		fault = err.Error()
	}
	if fault != "" && fault != r.fault {
		r.faults.Add(1)
		r.log.Error("roles not read: those of before stay in force", "path", r.path, "err", err)
	}
	r.fault = fault
	r.faulty.Store(fault != "")
}

func readRolesFile(path string) ([]byte, error) {
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read roles: %w", err)
	case info.Mode().Perm()&0o022 != 0:
		// Whoever may write it is an admin.
		return nil, fmt.Errorf("read roles: %s is writable by group or others (mode %04o)", path, info.Mode().Perm())
	case info.Size() > maxRolesFile:
		return nil, fmt.Errorf("read roles: %s has more than %d bytes", path, maxRolesFile)
	}
	text := make([]byte, info.Size())
	n, err := file.ReadAt(text, 0)
	if n < len(text) {
		return nil, fmt.Errorf("read roles: %s was cut while it was read: %w", path, err)
	}
	return text, nil
}

// parseRoles reads a list of `{id: …, role: …}`. Every fault is returned, each with its place.
func parseRoles(text []byte) ([]grant, error) {
	var entries []struct {
		ID   string `json:"id"`
		Role string `json:"role"`
	}
	if err := yaml.UnmarshalStrict(text, &entries); err != nil {
		return nil, fmt.Errorf("read roles: %w", err)
	}
	if len(entries) == 0 {
		// An empty file is more often one that is being written than the wish that nobody may do anything.
		return nil, errors.New("read roles: no entries: nobody would have a role")
	}
	var grants []grant
	var faults []error
	for i, entry := range entries {
		g, err := parseGrant(entry.ID, entry.Role)
		if err != nil {
			faults = append(faults, fmt.Errorf("entry %d: %w", i+1, err))
		}
		grants = append(grants, g)
	}
	return grants, errors.Join(faults...)
}

func parseGrant(id, role string) (g grant, err error) {
	var roleErr error
	if g.role, roleErr = identity.ParseRole(role); roleErr != nil {
		roleErr = fmt.Errorf("role: %w", roleErr)
	}
	if id == allDNSNames {
		g.prefix = strings.TrimSuffix(id, "*")
	} else if within, ok := strings.CutSuffix(id, "/*"); ok {
		// What is before the star has to be an identity or a trust domain, so that no prefix ends within a name.
		domain, isSPIFFE := strings.CutPrefix(within, "spiffe://")
		if _, err = identity.ParseID(within); err != nil && isSPIFFE {
			_, err = identity.ParseTrustDomain(domain)
		} else if err == nil && !isSPIFFE {
			err = fmt.Errorf("%q: only SPIFFE IDs have a path that a star can stand for", id)
		}
		g.prefix = within + "/"
	} else {
		g.id, err = identity.ParseID(id)
	}
	if (id == allDNSNames || g.id.DNS()) && g.role != identity.Node {
		err = errors.Join(err, fmt.Errorf("%q can only be a node", id))
	}
	if err != nil {
		err = fmt.Errorf("id: %w", err)
	}
	return g, errors.Join(err, roleErr)
}
