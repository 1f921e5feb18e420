// Package authoritytest makes certificates in files, for tests.
package authoritytest

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nameward/nameward/api/authority"
	"github.com/nameward/nameward/api/identity"
	"github.com/nameward/nameward/api/transport"
)

// Files are what a CA of the trust domain `nameward` has in a directory.
type Files struct {
	t   testing.TB
	ca  *authority.Authority
	dir string
}

// New makes a CA whose files go with the test.
func New(t testing.TB) *Files {
	t.Helper()
	ca, err := authority.New("nameward", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	f := &Files{t, ca, t.TempDir()}
	pair, err := ca.Pair()
	if err != nil {
		t.Fatal(err)
	}
	f.write("ca.crt", pair.Certificate)
	return f
}

// Issue writes a certificate that is good for an hour, and returns what uses it.
func (f *Files) Issue(role identity.Role, name string) transport.Config {
	f.t.Helper()
	return f.IssueAt(role, name, time.Now(), time.Hour)
}

// IssueAt writes one that was issued at any time, in the place of an older one.
func (f *Files) IssueAt(role identity.Role, name string, at time.Time, lifetime time.Duration) transport.Config {
	f.t.Helper()
	pair, _, err := f.ca.Issue(authority.Request{Role: role, Name: name, Lifetime: lifetime}, at)
	if err != nil {
		f.t.Fatal(err)
	}
	file := string(role) + "-" + name
	cfg := transport.Config{CertFile: f.write(file+".crt", pair.Certificate), KeyFile: f.write(file+".key", pair.Key), CAFile: filepath.Join(f.dir, "ca.crt")}
	return cfg
}

func (f *Files) write(name string, text []byte) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// T returns the test that the files go with.
func (f *Files) T() testing.TB { return f.t }
