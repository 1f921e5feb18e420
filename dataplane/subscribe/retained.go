package subscribe

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/dataplane/statefile"
)

const (
	retainedPrefix = diskFile + ".before."
	// maxRetained is how many rule sets are kept. In place of more there is an empty file, which says that
	// any connection may have been allowed.
	maxRetained = 16
)

// Retain keeps what is saved now as one that connections may have been allowed by, until Release. It costs
// a link: what is saved next gets a file of its own.
func (d *Disk) Retain() error {
	return d.retain(func(path string) error { return os.Link(filepath.Join(d.dir, diskFile), path) })
}

// RetainAny keeps, until Release, that connections may have been allowed by anything.
func (d *Disk) RetainAny() error {
	return d.retain(func(path string) error { return os.WriteFile(path, nil, 0o600) })
}

func (d *Disk) retain(file func(path string) error) error {
	names, err := d.retained()
	if err != nil {
		return err
	}
	next := 1
	if len(names) > 0 {
		next += retainedNumber(names[len(names)-1])
	}
	if len(names) >= maxRetained {
		if err := d.Release(); err != nil {
			return err
		}
		file = func(path string) error { return os.WriteFile(path, nil, 0o600) }
	}
	if err := file(filepath.Join(d.dir, retainedPrefix+strconv.Itoa(next))); err != nil {
		return fmt.Errorf("retain rule set: %w", err)
	}
	return nil
}

// Release drops what was retained.
func (d *Disk) Release() error {
	names, err := d.retained()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := os.RemoveAll(filepath.Join(d.dir, name)); err != nil { // may be a directory
			return fmt.Errorf("release rule set: %w", err)
		}
	}
	return nil
}

// Retained returns what was retained and not released, the oldest first. One that cannot be read may have
// allowed everything.
func (d *Disk) Retained() ([]*ruleset.RuleSet, error) {
	names, err := d.retained()
	if err != nil {
		return nil, err
	}
	var retained []*ruleset.RuleSet
	for _, name := range names {
		rules, err := d.readRetained(name)
		if err != nil {
			d.log.Warn("a rule set before is not known: connections are judged as if all had been allowed", "file", name, "err", err)
			rules = &ruleset.RuleSet{}
		}
		retained = append(retained, rules)
	}
	return retained, nil
}

func (d *Disk) readRetained(name string) (*ruleset.RuleSet, error) {
	content, err := statefile.Read(filepath.Join(d.dir, name))
	if err != nil {
		return nil, fmt.Errorf("read retained rule set: %w", err)
	}
	if len(content) == 0 {
		return &ruleset.RuleSet{}, nil // of RetainAny
	}
	revision, err := decode(content)
	if err != nil {
		return nil, err
	}
	return revision.Rules, nil
}

// retained returns the names of the files, the oldest first.
func (d *Disk) retained() ([]string, error) {
	entries, err := os.ReadDir(d.dir)
	if err != nil {
		return nil, fmt.Errorf("list retained rule sets: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), retainedPrefix) {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(retainedNumber(a), retainedNumber(b)) })
	return names, nil
}

func retainedNumber(name string) int {
	number, _ := strconv.Atoi(strings.TrimPrefix(name, retainedPrefix))
	return number
}
