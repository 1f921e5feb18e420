package transport

import (
	"context"
	"os"
	"syscall"
	"time"
)

// lookInterval is how often files are looked at: one call of the kernel for each, links followed, so that new files
// by rename, by write and by a link that points elsewhere are all seen.
const lookInterval = 2 * time.Second

// mark is what changes when a file does.
type mark struct {
	inode          uint64
	size           int64
	modified, made int64
}

// marks are those of certificate, key and CAs; a file that is not there has none.
type marks [3]mark

func (c Config) marks() marks {
	var all marks
	for i, path := range []string{c.CertFile, c.KeyFile, c.ca()} {
		info, err := os.Stat(path)
		if err != nil {
			continue
		}
		all[i] = mark{size: info.Size(), modified: info.ModTime().UnixNano()}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			all[i].inode, all[i].made = stat.Ino, stat.Ctim.Nano()
		}
	}
	return all
}

// files is what is known of files between looks.
type files struct {
	// seen are the marks when files were read last, failed those of what could not be read at the last look.
	seen   marks
	failed marks
	doubt  bool
}

// watchFiles looks at the files until ctx ends.
func (s *Source) watchFiles(ctx context.Context) error {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		s.sayExpiry(time.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		s.look()
	}
}

// look reads files that have changed. A certificate and its key do not change in one moment: what does not fit is told
// of when it still does not at the next look.
func (s *Source) look() {
	f, now := &s.files, s.cfg.marks()
	if now == f.seen {
		return
	}
	m, err := s.cfg.loadFiles(s.end)
	if err != nil && (!f.doubt || f.failed != now) {
		f.failed, f.doubt = now, true
		return
	}
	f.seen, f.doubt = now, false
	if before, fault := s.Current(); err == nil && fault == nil && m.same(before) {
		return
	}
	s.take(m, err)
}

// same reports whether nothing is new.
func (m *Material) same(before *Material) bool {
	if before == nil || !m.Leaf.Equal(before.Leaf) || len(m.Authorities) != len(before.Authorities) {
		return false
	}
	for i, authority := range m.Authorities {
		if !authority.Equal(before.Authorities[i]) {
			return false
		}
	}
	return true
}
