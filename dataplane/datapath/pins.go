package datapath

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/nameward/nameward/bpf"
)

// Programs returns the pins that the packet filter calls.
func (d *Datapath) Programs() Programs {
	pin := func(program string) string { return filepath.Join(d.cfg.programDir(), pinName(program)) }
	return Programs{
		DNSQueryForwarded: pin(bpf.DatapathProgDnsQueryForwarded),
		DNSQueryLocal:     pin(bpf.DatapathProgDnsQueryLocal),
		DNSResponse:       pin(bpf.DatapathProgDnsResponse),
		DNSUntrusted:      pin(bpf.DatapathProgDnsUntrusted),
		DNSUnasked:        pin(bpf.DatapathProgDnsUnasked),
		EgressForwarded:   pin(bpf.DatapathProgEgressForwarded),
		EgressLocal:       pin(bpf.DatapathProgEgressLocal),
		AcceptForwarded:   pin(bpf.DatapathProgAcceptForwarded),
		AcceptLocal:       pin(bpf.DatapathProgAcceptLocal),
	}
}

// PinDir returns the directory of pins that the pin of a program is below.
func PinDir(program string) string { return filepath.Dir(filepath.Dir(filepath.Dir(program))) }

// RetirePrograms removes the pins of programs of other builds, and all of other layouts. To be called when
// no rule names them.
func (d *Datapath) RetirePrograms() error {
	return errors.Join(d.retireBuilds(), d.retireLayouts())
}

func (d *Datapath) retireBuilds() error {
	pins, err := os.ReadDir(d.cfg.programDir())
	if err != nil {
		return fmt.Errorf("list pinned programs: %w", err)
	}
	var errs []error
	for _, pin := range pins {
		if strings.HasSuffix(pin.Name(), "-"+bpf.Build()) {
			continue
		}
		if err := os.Remove(filepath.Join(d.cfg.programDir(), pin.Name())); err != nil {
			errs = append(errs, fmt.Errorf("retire program: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Remove removes every pin and directory below pinDir that a datapath of any release made. The rules that
// name the programs must be gone. What does not exist is no error.
func Remove(pinDir string) error {
	entries, err := os.ReadDir(pinDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list layouts of pins: %w", err)
	}
	var errs []error
	for _, entry := range entries {
		if isLayout(entry.Name()) {
			errs = append(errs, removeLayout(filepath.Join(pinDir, entry.Name())))
		}
	}
	// The directory may be the operator's own, with other things in it, or a mount point.
	_ = os.Remove(pinDir)
	return errors.Join(errs...)
}

// removeLayout removes programs before maps, so that a predecessor that is half removed is no predecessor
// that can be read.
func removeLayout(dir string) error {
	for _, d := range []string{filepath.Join(dir, "programs"), dir} {
		if err := os.RemoveAll(d); err != nil {
			return fmt.Errorf("remove pins: %w", err)
		}
	}
	return nil
}
