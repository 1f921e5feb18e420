package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nameward/nameward/api/authority"
)

const (
	authorityName     = "ca"
	certificateSuffix = ".crt"
	keySuffix         = ".key"
	certificateMode   = 0o644
	keyMode           = 0o600
)

// pairFiles are where a certificate and its key lie.
type pairFiles struct{ certificate, key string }

func pairPaths(dir, name string) pairFiles {
	return pathsOf(filepath.Join(dir, name+certificateSuffix))
}

func pathsOf(certificate string) pairFiles {
	return pairFiles{certificate, strings.TrimSuffix(certificate, certificateSuffix) + keySuffix}
}

func (f pairFiles) made(certificate *x509.Certificate) certificateFiles {
	return certificateFiles{f.certificate, f.key, certificate.URIs[0].String(), certificate.NotAfter.UTC()}
}

// makePrivate makes a directory, and complains of one that others can read: its keys have modes of their own.
func (p *program) makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at directory: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		p.complain(fmt.Sprintf("%s can be looked into by others (mode %#o): chmod 700 %s", dir, info.Mode().Perm(), dir))
	}
	return nil
}

// writeNew writes both files, or none. It overwrites neither.
func writeNew(files pairFiles, pair authority.Pair) error {
	if _, err := os.Lstat(files.certificate); err == nil {
		return fmt.Errorf("%s is there already: nothing is overwritten (`pki renew` renews)", files.certificate)
	}
	if err := writeFile(files.key, pair.Key, keyMode); err != nil {
		return err
	}
	if err := writeFile(files.certificate, pair.Certificate, certificateMode); err != nil {
		return errors.Join(err, os.Remove(files.key))
	}
	return syncDirectory(filepath.Dir(files.key))
}

// replace puts new files in the place of old ones, each whole. What reads them between the two finds a pair that does not
// fit, and looks again.
func replace(files pairFiles, pair authority.Pair) error {
	for _, file := range []struct {
		path string
		text []byte
		mode os.FileMode
	}{{files.key, pair.Key, keyMode}, {files.certificate, pair.Certificate, certificateMode}} {
		next := file.path + ".new"
		if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove what is left of a renewal that did not end: %w", err)
		}
		if err := writeFile(next, file.text, file.mode); err != nil {
			return err
		}
		if err := os.Rename(next, file.path); err != nil {
			return fmt.Errorf("put the new file in place: %w", err)
		}
	}
	return syncDirectory(filepath.Dir(files.key))
}

// writeFile writes a new file, whole and durable, or none.
func writeFile(path string, text []byte, mode os.FileMode) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
		}
	}()
	// Whatever the umask is: a certificate is for everybody, and a key for nobody else.
	if err := file.Chmod(mode); err != nil {
		return err //nolint:wrapcheck // above
	}
	if _, err := file.Write(text); err != nil {
		return err //nolint:wrapcheck // above
	}
	return file.Sync() //nolint:wrapcheck // above
}

func syncDirectory(dir string) error {
	opened, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("make durable: %w", err)
	}
	return errors.Join(opened.Sync(), opened.Close())
}

func readAuthority(dir string) (*authority.Authority, error) {
	files := pairPaths(dir, authorityName)
	var (
		pair authority.Pair
		err  error
	)
	if pair.Certificate, err = os.ReadFile(files.certificate); err != nil {
		return nil, fmt.Errorf("read the CA (`namewardctl pki init` makes one): %w", err)
	}
	if pair.Key, err = os.ReadFile(files.key); err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	ca, err := authority.Parse(pair)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return ca, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	certificate, err := authority.ParseCertificate(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certificate, nil
}
