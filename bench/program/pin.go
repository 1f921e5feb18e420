package program

import (
	"errors"
	"fmt"

	"github.com/nameward/nameward/api/domain"
)

// A PinnedLPM is the baseline with an LPM trie as a program that rules can call.
type PinnedLPM struct {
	Name string // says how large its map of sets is
	Pin  func(path string, patterns []domain.Pattern) (unload func() error, err error)
}

// PinnedLPMs are the baseline with each size of its map of sets. The path is on a bpf file system.
func PinnedLPMs() []PinnedLPM {
	list := make([]PinnedLPM, 0, len(lpmBuckets))
	for _, buckets := range lpmBuckets {
		list = append(list, PinnedLPM{lpmName(buckets), func(path string, patterns []domain.Pattern) (func() error, error) {
			l, err := newLPM(patterns, buckets)
			if err != nil {
				return nil, err
			}
			if err := l.LpmResponse.Pin(path); err != nil {
				return nil, errors.Join(fmt.Errorf("pin LPM baseline: %w", err), l.Close())
			}
			return l.Close, nil
		}})
	}
	return list
}
