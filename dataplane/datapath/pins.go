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

// RetirePrograms removes the pins of programs of other builds. To be called when no rule names them.
func (d *Datapath) RetirePrograms() error {
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

// Remove removes every pin and directory below pinDir that a datapath made. The rules that name the
// programs must be gone. What does not exist is no error.
func Remove(pinDir string) error {
	cfg := Config{PinDir: pinDir}
	var errs []error
	for _, dir := range []string{cfg.programDir(), cfg.mapDir(), filepath.Join(pinDir, layout)} {
		if err := os.RemoveAll(dir); err != nil {
			errs = append(errs, fmt.Errorf("remove pins: %w", err))
		}
	}
	// The directory may be the operator's own, with other things in it, or a mount point.
	_ = os.Remove(pinDir)
	return errors.Join(errs...)
}
