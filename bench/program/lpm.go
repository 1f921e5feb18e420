package program

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bench/report"
)

// lpmBuckets are the sizes of the baseline's map of sets. The kernel makes one bucket an entry that a map may
// have, and a scan visits every bucket, used or not.
var lpmBuckets = []uint32{128, 65_536}

// An lpm is the baseline with an LPM trie of reversed names.
type lpm struct {
	lpmObjects
	name string
}

// newLPMs loads the baseline with each size of its map of sets.
func newLPMs(patterns []domain.Pattern) (list lpms, err error) {
	for _, buckets := range lpmBuckets {
		l, err := newLPM(patterns, buckets)
		if err != nil {
			return nil, errors.Join(err, list.close())
		}
		list = append(list, l)
	}
	return list, nil
}

type lpms []*lpm

func (list lpms) close() error {
	var errs []error
	for _, l := range list {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func newLPM(patterns []domain.Pattern, buckets uint32) (*lpm, error) {
	spec, err := loadLpm()
	if err != nil {
		return nil, fmt.Errorf("read LPM baseline: %w", err)
	}
	spec.Maps["lpm_names"].MaxEntries = uint32(len(patterns)) //nolint:gosec // at most a few millions
	spec.Maps["lpm_sets"].MaxEntries = buckets
	l := &lpm{name: lpmName(buckets)}
	if err := spec.LoadAndAssign(&l.lpmObjects, nil); err != nil {
		return nil, fmt.Errorf("load LPM baseline: %w", err)
	}
	const group = uint32(1)
	err = l.LpmSets.Put(uint32(1), group)
	for chunk := range slices.Chunk(patterns, 4096) {
		keys, values := make([]lpmReversedName, len(chunk)), make([]uint32, len(chunk))
		for i, pattern := range chunk {
			keys[i], values[i] = reversed(pattern), group
		}
		if err == nil {
			_, err = l.LpmNames.BatchUpdate(keys, values, &ebpf.BatchOptions{})
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fill LPM trie with %d patterns: %w", len(patterns), err), l.Close())
	}
	return l, nil
}

// reversed gives a pattern as the trie has it: moc.elpmaxe and its end, or moc.elpmaxe. and anything.
func reversed(pattern domain.Pattern) (key lpmReversedName) {
	text, below := strings.CutPrefix(pattern.String(), "*.")
	for i := range len(text) {
		key.Name[i] = text[len(text)-1-i]
	}
	if below {
		key.Name[len(text)] = '.'
	}
	key.Bits = uint32(len(text)+1) * 8 //nolint:gosec // at most 254 bytes
	return key
}

func lpmName(buckets uint32) string {
	return fmt.Sprintf("LPM trie, scan of %s buckets", report.Thousands(float64(buckets)))
}

// knows checks whether the baseline learns an address from a response.
func (l *lpm) knows(response []byte, address netip.Addr) (bool, error) {
	if err := run(l.LpmResponse, response); err != nil {
		return false, err
	}
	key := struct {
		set     uint32
		address [4]byte
	}{1, address.As4()}
	var ends uint64
	err := l.LpmLearned.Lookup(&key, &ends)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return false, nil
	}
	return err == nil, err
}

// check makes sure that the baseline does what it is measured at.
func (l *lpm) check(response []byte, last netip.Addr) error {
	known, err := l.knows(response, last)
	if err == nil && !known {
		err = fmt.Errorf("%s: it did not learn %s", l.name, last)
	}
	return err
}
