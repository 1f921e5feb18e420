package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/statefile"
)

const (
	bootIDFile   = "/proc/sys/kernel/random/boot_id"
	asideSuffix  = ".corrupt"
	journalRetry = 10 * time.Second
)

var errClockBehind = errors.New("the wall clock is behind the time at which the node stopped")

// openJournal opens the journal of this boot. A file that cannot be used is set aside. Where none can be
// kept, for want of room say, the agent goes on without: mend tries again. The error is errJournalInUse
// alone.
func openJournal(dir string, c clock, log *slog.Logger) (*journal, error) {
	j := &journal{path: filepath.Join(dir, journalFile), log: log}
	if err := j.open(c); errors.Is(err, errJournalInUse) {
		return nil, err
	} else if err != nil {
		j.fail(err)
	}
	return j, nil
}

func (j *journal) open(c clock) error {
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	err := j.openFile(c)
	if err == nil || errors.Is(err, errJournalInUse) || lacksRoom(err) {
		return err
	}
	aside, asideErr := statefile.SetAside(j.path, asideSuffix)
	if asideErr != nil {
		return errors.Join(err, asideErr)
	}
	j.log.Warn("journal of mappings is set aside: names that were resolved before are not known", "err", err, "file", aside)
	if err := j.openFile(c); err != nil {
		return err
	}
	return j.forgetful()
}

// lacksRoom reports whether the file is as good as it was, and only cannot be written.
func lacksRoom(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EROFS)
}

func (j *journal) openFile(c clock) error {
	if err := checkPages(j.path); err != nil {
		return fmt.Errorf("check journal: %w", err)
	}
	_, err := os.Lstat(j.path)
	made := errors.Is(err, os.ErrNotExist)
	return guarded(func() error {
		db, err := bbolt.Open(j.path, 0o600, &bbolt.Options{
			NoSync: true, FreelistType: bbolt.FreelistMapType, Timeout: journalLockWait,
		})
		if errors.Is(err, bbolterrors.ErrTimeout) {
			return fmt.Errorf("open journal: %w", errJournalInUse)
		}
		if err != nil {
			if made {
				_ = os.Remove(j.path) // half made; what is left would be taken for damaged
			}
			return fmt.Errorf("open journal: %w", err)
		}
		if err := j.begin(db, c); err != nil {
			return errors.Join(fmt.Errorf("read journal: %w", err), db.Close())
		}
		j.db = db
		return nil
	})
}

// guarded turns a panic into an error: bbolt trusts its pages, and somebody may cut the file short at any
// time.
func guarded(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("use journal: %w: %v", errDamaged, p)
		}
	}()
	return f()
}

// begin checks every line of the file, and carries those of another boot over into this one.
func (j *journal) begin(db *bbolt.DB, c clock) error {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return err
	}
	same := false
	if err := db.View(func(tx *bbolt.Tx) error {
		if tx.Bucket(metaBucket) == nil {
			return nil // new
		}
		was, err := checkLines(tx)
		same = bytes.Equal(was, boot)
		return err
	}); err != nil || same {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error { return j.startBoot(tx, boot, c) })
}

// checkLines meets every line, and returns the id of the boot that they are of.
func checkLines(tx *bbolt.Tx) (boot []byte, err error) {
	var found journalTotal
	for _, name := range [][]byte{metaBucket, mappingsBucket} {
		bucket := tx.Bucket(name)
		if bucket == nil {
			return nil, fmt.Errorf("%s is not there", name)
		}
		found = journalTotal{} // the lines come last
		if err := bucket.ForEach(func(key, line []byte) error {
			if _, err := unseal(key, line); err != nil {
				return err
			}
			found.add(line)
			return nil
		}); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	lines, err := linesOf(tx)
	if err != nil {
		return nil, err
	}
	if lines.journalTotal != found {
		return nil, fmt.Errorf("it has %d lines where %d were written", found.Lines, lines.Lines)
	}
	boot, err = getMeta(tx, bootKey)
	if err == nil && boot == nil {
		err = errors.New("it is of no boot")
	}
	return boot, err
}

// startBoot begins the journal of a boot: with the mappings of the one before that still live. What match
// sets stood for was lost with the kernel's tables.
func (j *journal) startBoot(tx *bbolt.Tx, boot []byte, c clock) error {
	lines, err := carryOver(tx, c)
	if errors.Is(err, errClockBehind) {
		j.log.Warn("names that were resolved before the boot are not known", "err", err)
	} else if err != nil {
		return err
	}
	for _, name := range [][]byte{metaBucket, mappingsBucket} {
		if err := tx.DeleteBucket(name); err != nil && !errors.Is(err, bbolterrors.ErrBucketNotFound) {
			return err
		}
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	kept := linesIn(tx.Bucket(mappingsBucket))
	for _, line := range lines {
		if err := kept.replace(nil, line.key, line.head, line.names); err != nil {
			return err
		}
	}
	if len(lines) > 0 {
		j.log.Info("mappings of before the boot live on", "mappings", len(lines))
	}
	return errors.Join(kept.keep(tx), putMeta(tx, bootKey, boot), putClock(tx, c))
}

type journalLine struct {
	key, names []byte
	head       journalHead
}

// carryOver returns the lines that still live, with their times on the clock of this boot. The wall clock
// says for how long the node was away. It is believed as far as it can be: where it is behind what it was,
// nothing is known to live. A mapping never gets more time than it had left.
func carryOver(tx *bbolt.Tx, c clock) (lines []journalLine, err error) {
	if tx.Bucket(metaBucket) == nil {
		return nil, nil
	}
	record, err := getMeta(tx, clockKey)
	if err != nil {
		return nil, err
	}
	var was journalClock
	if _, err := binary.Decode(record, binary.LittleEndian, &was); err != nil {
		return nil, nil //nolint:nilerr // nothing was ever learned
	}
	away := c.now.UnixNano() - was.Wall
	if away < 0 {
		return nil, fmt.Errorf("%w, by %v", errClockBehind, time.Duration(-away))
	}
	shift := int64(c.boot) - was.Boot - away //nolint:gosec // the boot clock is not that old
	err = tx.Bucket(mappingsBucket).ForEach(func(key, value []byte) error {
		head, names, err := headOf(key, value)
		if err != nil {
			return err
		}
		for _, at := range []*int64{&head.ExpiresAt, &head.FirstSeen, &head.LastSeen} {
			*at += shift
		}
		if head.AnsweredAt != 0 {
			head.AnsweredAt += shift
		}
		if head.ExpiresAt > int64(c.boot) { //nolint:gosec // see above
			lines = append(lines, journalLine{bytes.Clone(key), bytes.Clone(names), head})
		}
		return nil
	})
	return lines, err
}

// journalClock is one moment on both clocks, of when the journal was written last.
type journalClock struct{ Boot, Wall int64 }

func putClock(tx *bbolt.Tx, c clock) error {
	record, err := binary.Append(nil, binary.LittleEndian, journalClock{int64(c.boot), c.now.UnixNano()}) //nolint:gosec // see above
	return errors.Join(err, putMeta(tx, clockKey, record))
}

func putMeta(tx *bbolt.Tx, key, value []byte) error {
	return tx.Bucket(metaBucket).Put(key, seal(key, value))
}

// getMeta returns nil for what is not there.
func getMeta(tx *bbolt.Tx, key []byte) ([]byte, error) {
	sealed := tx.Bucket(metaBucket).Get(key)
	if sealed == nil {
		return nil, nil
	}
	return unseal(key, sealed)
}
