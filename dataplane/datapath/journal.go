package datapath

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/nameward/nameward/dataplane/lower"
	"github.com/nameward/nameward/dataplane/observe"
	"github.com/nameward/nameward/dataplane/statefile"
)

const (
	journalFile     = "mappings.db"
	journalLockWait = 2 * time.Second
)

var (
	metaBucket     = []byte("meta")
	mappingsBucket = []byte("mappings")
	bootKey        = []byte("boot")
	clockKey       = []byte("clock")
	totalKey       = []byte("total")
	memoryKey      = []byte("lowering")
	forgotKey      = []byte("forgot")

	errJournalInUse = errors.New("another agent holds the state directory")
	errNoJournal    = errors.New("there is no journal of mappings")
)

// journal keeps, for the next process, what this one knows and the kernel does not: the names of
// mappings, and what match sets stand for. It is written without fsync: it has to survive the process,
// and a machine that is shut down in order; of one that loses its power it comes back whole or is set aside
// (ADR 24).
type journal struct {
	path string
	log  *slog.Logger
	db   *bbolt.DB // nil: there is none that could be written

	lacks   bool      // it lacks something that is known
	retryAt time.Time // when that is tried to be put right

	fault  atomic.Pointer[string] // why it lacks something; nil for nothing
	faults atomic.Uint64          // how often it was not written
}

func (j *journal) close(c clock) error {
	if j.db == nil {
		return nil
	}
	_ = j.update(func(tx *bbolt.Tx) error { return putClock(tx, c) }) // what it had is a little older
	if j.db == nil {
		return nil
	}
	return j.db.Close()
}

// update changes the journal. After an error it lacks something, which mend puts right.
func (j *journal) update(change func(tx *bbolt.Tx) error) error {
	if j.db == nil {
		j.lacks = true
		j.faults.Add(1)
		return errNoJournal
	}
	err := guarded(func() error { return j.db.Update(change) })
	if err != nil {
		j.fail(err)
	}
	return err
}

// change changes lines.
func (j *journal) change(c clock, change func(lines *journalLines) error) error {
	return j.update(func(tx *bbolt.Tx) error {
		lines, err := linesOf(tx)
		if err != nil {
			return err
		}
		if err := change(&lines); err != nil {
			return err
		}
		return errors.Join(lines.keep(tx), putClock(tx, c))
	})
}

// fail notes that something that is known is not in the journal. The first of its kind is logged.
func (j *journal) fail(err error) {
	j.faults.Add(1)
	if !j.lacks {
		j.log.Error("journal of mappings is not written: should the agent end now, names that were resolved before are not known", "err", err)
	}
	j.lacks = true
	text := err.Error()
	j.fault.Store(&text)
	if !errors.Is(err, errDamaged) && !errors.Is(err, errUnsealed) {
		return
	}
	// Not closed: whoever holds a lock of it may never let go. Its place is free for another.
	j.db = nil
	aside, err := statefile.SetAside(j.path, asideSuffix)
	j.log.Error("journal of mappings is damaged and was set aside", "file", aside, "err", err)
}

// mend makes a journal whole that lacks something, by what the caller knows.
func (j *journal) mend(c clock, memory func() lower.Memory, known func() []observe.Mapping) {
	if !j.lacks || c.now.Before(j.retryAt) {
		return
	}
	j.retryAt = c.now.Add(journalRetry)
	if j.db == nil {
		if err := j.open(c); err != nil {
			j.fail(err)
			return
		}
		if err := j.forgetful(); err != nil {
			return
		}
	}
	err := j.putMemory(memory())
	for part := range slices.Chunk(known(), 4*eventBatch) {
		if err != nil {
			return
		}
		err = j.change(c, func(lines *journalLines) error {
			for i := range part {
				if err := lines.putKnown(&part[i], c); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err != nil || j.describe() != nil {
		return
	}
	j.lacks = false
	j.fault.Store(nil)
	j.log.Info("journal of mappings is whole again")
}

// forgetful notes that names that had addresses are no longer known.
func (j *journal) forgetful() error {
	return j.update(func(tx *bbolt.Tx) error { return putMeta(tx, forgotKey, []byte{1}) })
}

// memory returns what match sets stood for; nothing when that is not known.
func (j *journal) memory() (memory lower.Memory, err error) {
	err = j.view(func(tx *bbolt.Tx) error {
		text, err := getMeta(tx, memoryKey)
		if text == nil {
			return err
		}
		return json.Unmarshal(text, &memory)
	})
	if err != nil {
		return lower.Memory{}, fmt.Errorf("read match sets: %w", err)
	}
	return memory, nil
}

func (j *journal) putMemory(memory lower.Memory) error {
	text, err := json.Marshal(memory)
	if err != nil {
		return fmt.Errorf("encode match sets: %w", err)
	}
	if err := j.update(func(tx *bbolt.Tx) error { return putMeta(tx, memoryKey, text) }); err != nil {
		return fmt.Errorf("write match sets: %w", err)
	}
	return nil
}

// put writes answers down.
func (j *journal) put(answers []learned, c clock) error {
	return j.change(c, func(lines *journalLines) error {
		for _, a := range answers {
			for _, address := range a.Addresses {
				if err := lines.putAnswer(a, address, c); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// drop removes mappings that gave way to newer ones.
func (j *journal) drop(dropped []observe.Dropped, c clock) error {
	err := j.change(c, func(lines *journalLines) error {
		for _, gone := range dropped {
			if err := lines.remove(journalKey(gone.Names[0], gone.Address)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("drop mappings: %w", err)
	}
	return nil
}

func (j *journal) view(read func(tx *bbolt.Tx) error) error {
	if j.db == nil {
		return nil
	}
	return guarded(func() error { return j.db.View(read) })
}

// mappings returns what is written down, expired or not, and the names that addresses had besides.
func (j *journal) mappings(c clock) ([]observe.Mapping, []observe.FormerName, error) {
	var live []observe.Mapping
	var former []observe.FormerName
	err := j.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(mappingsBucket).ForEach(func(key, line []byte) error {
			m, names, err := decodeMapping(key, line, c)
			if err != nil {
				return err
			}
			live = append(live, m)
			for _, name := range names {
				former = append(former, observe.FormerName{Address: m.Address, Name: name})
			}
			return nil
		})
	})
	if err != nil {
		return live, former, fmt.Errorf("read journal of mappings: %w", err)
	}
	return live, former, nil
}

// forget drops, of more lines than there is room for, those that expire first: connections outlive
// mappings, and are judged by the names that their addresses had. Lines that still live are dropped if they alone
// are too many: the table holds no more either.
func (j *journal) forget(c clock, room int) error {
	forgot := false
	err := j.change(c, func(lines *journalLines) error {
		all, over, err := lines.tooMany(room)
		if err != nil || over <= 0 {
			return err
		}
		slices.SortFunc(all, func(a, b expiringLine) int { return cmp.Compare(a.at, b.at) })
		expired, _ := slices.BinarySearchFunc(all, int64(c.boot)+1, func(line expiringLine, at int64) int { return cmp.Compare(line.at, at) }) //nolint:gosec // the boot clock is not that old
		for _, line := range all[:max(min(over+room/8, expired), over)] {
			err = errors.Join(err, lines.remove(line.key))
		}
		forgot = true
		return err
	})
	if err == nil && forgot {
		err = j.forgetful()
	}
	if err != nil {
		return fmt.Errorf("forget expired mappings: %w", err)
	}
	return nil
}

// forgot reports whether lines were ever dropped in this boot.
func (j *journal) forgot() bool {
	forgot := j.db == nil
	_ = j.view(func(tx *bbolt.Tx) error { // never fails while it is open
		forgot = tx.Bucket(metaBucket).Get(forgotKey) != nil
		return nil
	})
	return forgot
}

type expiringLine struct {
	key []byte
	at  int64
}

// tooMany returns all lines if they are more than there is room for, and by how many.
func (l *journalLines) tooMany(room int) (all []expiringLine, over int, err error) {
	if over = int(l.Lines) - room; over <= 0 { //nolint:gosec // a count
		return nil, over, nil
	}
	err = l.bucket.ForEach(func(key, line []byte) error {
		head, _, err := headOf(key, line)
		if err == nil {
			all = append(all, expiringLine{key, head.ExpiresAt})
		}
		return err
	})
	return all, over, err
}
