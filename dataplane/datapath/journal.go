package datapath

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/dataplane/lower"
	"github.com/nameward/nameward/dataplane/observe"
)

const (
	journalFile = "mappings.db"
	bootIDFile  = "/proc/sys/kernel/random/boot_id"

	journalLockWait = 2 * time.Second
)

var (
	metaBucket     = []byte("meta")
	mappingsBucket = []byte("mappings")
	bootKey        = []byte("boot")
	memoryKey      = []byte("lowering")
	forgotKey      = []byte("forgot")

	errJournalInUse = errors.New("another agent holds the state directory")
)

// journal keeps, for the next process, what this one knows and the kernel does not: the names of
// mappings, and what match sets stand for. It is written without fsync: it has to survive the process,
// not the machine, since after a boot the kernel knows nothing either.
type journal struct {
	db *bbolt.DB
}

// openJournal opens the journal of this boot. A file that cannot be read is set aside.
func openJournal(dir string, log *slog.Logger) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	path := filepath.Join(dir, journalFile)
	j, err := openJournalFile(path)
	if err == nil || errors.Is(err, errJournalInUse) {
		return j, err
	}
	aside := path + ".corrupt"
	log.Warn("journal of mappings is set aside: names that were resolved before are not known", "err", err, "file", aside)
	if err := os.Rename(path, aside); err != nil {
		return nil, fmt.Errorf("set journal aside: %w", err)
	}
	if j, err = openJournalFile(path); err != nil {
		return nil, err
	}
	return j, j.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put(forgotKey, []byte{1}) })
}

func openJournalFile(path string) (j *journal, err error) {
	// bbolt trusts its pages once the file's head is right: what it meets in a damaged one is a panic, or
	// a fault where the file was cut. (Its own check, and its scan for free pages, panic where nobody can
	// recover, so neither is used.)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			j, err = nil, fmt.Errorf("read journal: %v", p)
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		NoSync: true, FreelistType: bbolt.FreelistMapType, Timeout: journalLockWait,
	})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open journal: %w", errJournalInUse)
	}
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := db.Update(startBoot); err != nil {
		return nil, errors.Join(fmt.Errorf("read journal: %w", err), db.Close())
	}
	return &journal{db}, nil
}

// startBoot empties a journal of another boot.
func startBoot(tx *bbolt.Tx) error {
	boot, err := os.ReadFile(bootIDFile)
	if err != nil {
		return err
	}
	if meta := tx.Bucket(metaBucket); meta != nil && bytes.Equal(meta.Get(bootKey), boot) {
		return readAll(tx)
	}
	for _, name := range [][]byte{metaBucket, mappingsBucket} {
		if err := tx.DeleteBucket(name); err != nil && !errors.Is(err, bbolterrors.ErrBucketNotFound) {
			return err
		}
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	return tx.Bucket(metaBucket).Put(bootKey, boot)
}

// readAll meets every page that a later read could meet.
func readAll(tx *bbolt.Tx) error {
	for _, name := range [][]byte{metaBucket, mappingsBucket} {
		bucket := tx.Bucket(name)
		if bucket == nil {
			return fmt.Errorf("%s is not there", name)
		}
		if err := bucket.ForEach(func([]byte, []byte) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) close() error { return j.db.Close() }

// memory returns what match sets stood for; nothing when that is not known.
func (j *journal) memory() (memory lower.Memory, err error) {
	err = j.db.View(func(tx *bbolt.Tx) error {
		text := tx.Bucket(metaBucket).Get(memoryKey)
		if text == nil {
			return nil
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
	if err := j.db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(metaBucket).Put(memoryKey, text)
	}); err != nil {
		return fmt.Errorf("write match sets: %w", err)
	}
	return nil
}

// put writes answers down.
func (j *journal) put(answers []learned, c clock) error {
	return j.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(mappingsBucket)
		for _, a := range answers {
			for _, address := range a.Addresses {
				if err := putMapping(bucket, a, address, c); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// drop removes mappings that gave way to newer ones.
func (j *journal) drop(dropped []observe.Dropped) error {
	err := j.db.Update(func(tx *bbolt.Tx) error {
		for _, gone := range dropped {
			if err := tx.Bucket(mappingsBucket).Delete(journalKey(gone.Names[0], gone.Address)); err != nil {
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

// journalHead is the fixed part of a line, all times in nanoseconds of the boot clock. Behind it come
// the names of the chain in wire form, and behind a root name those of earlier chains.
type journalHead struct {
	ExpiresAt, FirstSeen, LastSeen uint64
	AnsweredAt                     uint64 // 0: never
	Client                         [16]byte
}

const journalHeadBytes = 4*8 + 16

func (h *journalHead) appendTo(line []byte) []byte {
	for _, at := range [...]uint64{h.ExpiresAt, h.FirstSeen, h.LastSeen, h.AnsweredAt} {
		line = binary.LittleEndian.AppendUint64(line, at)
	}
	return append(line, h.Client[:]...)
}

// decodeHead returns what a line begins with, and what comes behind that; false where the line is cut short.
func decodeHead(line []byte) (h journalHead, names []byte, ok bool) {
	if len(line) < journalHeadBytes {
		return h, nil, false
	}
	for i, at := range [...]*uint64{&h.ExpiresAt, &h.FirstSeen, &h.LastSeen, &h.AnsweredAt} {
		*at = binary.LittleEndian.Uint64(line[8*i:])
	}
	copy(h.Client[:], line[4*8:])
	return h, line[journalHeadBytes:], true
}

func putMapping(bucket *bbolt.Bucket, a learned, address observe.Address, c clock) error {
	seen := c.toBoot(a.LearnedAt)
	head := journalHead{ExpiresAt: c.toBoot(a.ExpiresAt), FirstSeen: seen, LastSeen: seen, Client: a.Client.As16()}
	if a.Question == observe.QuestionFor(address.Address) {
		head.AnsweredAt = seen
	}
	key := journalKey(a.Names[0], address.Address)
	var names journalNames
	if old, rest, known := decodeHead(bucket.Get(key)); known {
		names = splitNames(rest)
		head.ExpiresAt = max(head.ExpiresAt, old.ExpiresAt)
		head.FirstSeen = min(head.FirstSeen, old.FirstSeen)
		head.AnsweredAt = max(head.AnsweredAt, old.AnsweredAt)
	}
	value := head.appendTo(make([]byte, 0, 256))
	for _, name := range a.Names[1:address.Names] {
		value = name.AppendWire(value)
	}
	return bucket.Put(key, names.appendFormer(value, a.Names[1:address.Names]))
}

// maxFormerAliases is how many aliases of earlier chains a line has, the last ones.
const maxFormerAliases = 16

// journalNames are the names of a line in wire form.
type journalNames struct {
	chain, former [][]byte
}

func splitNames(wire []byte) (names journalNames) {
	list := &names.chain
	for len(wire) > 0 {
		end := nameEnd(wire)
		switch end {
		case 0:
			return names
		case 1:
			list = &names.former
		default:
			*list = append(*list, wire[:end])
		}
		wire = wire[end:]
	}
	return names
}

// appendFormer writes what a line had besides a new chain.
func (n journalNames) appendFormer(value []byte, chain []domain.Name) []byte {
	if len(n.former)+len(n.chain) == 0 {
		return value
	}
	former := slices.DeleteFunc(slices.Concat(n.former, n.chain), func(wire []byte) bool {
		return slices.ContainsFunc(chain, func(name domain.Name) bool { return bytes.Equal(name.Wire(), wire) })
	})
	former = former[max(0, len(former)-maxFormerAliases):]
	if len(former) == 0 {
		return value
	}
	return append(append(value, 0), bytes.Join(former, nil)...)
}

func journalKey(asked domain.Name, a netip.Addr) []byte {
	address := a.As16()
	return append(asked.AppendWire(make([]byte, 0, len(asked.String())+2+len(address))), address[:]...)
}

// mappings returns what is written down, expired or not, and the names that addresses had besides.
func (j *journal) mappings(c clock) ([]observe.Mapping, []observe.FormerName, error) {
	var live []observe.Mapping
	var former []observe.FormerName
	err := j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(mappingsBucket).ForEach(func(key, value []byte) error {
			m, names, err := decodeMapping(key, value, c)
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

func decodeMapping(key, value []byte, c clock) (m observe.Mapping, former []domain.Name, err error) {
	head, rest, whole := decodeHead(value)
	if !whole || len(key) < 16 {
		return m, nil, errors.New("line is cut short")
	}
	asked, err := domain.FromWire(key[:len(key)-16])
	if err != nil {
		return m, nil, err
	}
	m = observe.Mapping{
		Domain:    asked,
		Address:   netip.AddrFrom16([16]byte(key[len(key)-16:])).Unmap(),
		Client:    netip.AddrFrom16(head.Client).Unmap(),
		FirstSeen: c.fromBoot(head.FirstSeen),
		LastSeen:  c.fromBoot(head.LastSeen),
		ExpiresAt: c.fromBoot(head.ExpiresAt),
	}
	if head.AnsweredAt != 0 {
		m.AnsweredAt = c.fromBoot(head.AnsweredAt)
	}
	names := splitNames(rest)
	if m.Chain, err = fromWire(names.chain); err != nil {
		return m, nil, err
	}
	former, err = fromWire(names.former)
	return m, former, err
}

func fromWire(wire [][]byte) (names []domain.Name, err error) {
	for _, w := range wire {
		name, err := domain.FromWire(w)
		if err != nil {
			return names, err
		}
		names = append(names, name)
	}
	return names, nil
}

// forget drops, of more lines than there is room for, those that expired first: connections outlive
// mappings, and are judged by the names that their addresses had.
func (j *journal) forget(before uint64, room int) error {
	err := j.db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(mappingsBucket)
		expired, over, err := expiredLines(bucket, before, room)
		if err != nil || over <= 0 || len(expired) == 0 {
			return err
		}
		slices.SortFunc(expired, func(a, b expiredLine) int { return cmp.Compare(a.at, b.at) })
		for _, line := range expired[:min(over+room/8, len(expired))] {
			err = errors.Join(err, bucket.Delete(line.key))
		}
		return errors.Join(err, tx.Bucket(metaBucket).Put(forgotKey, []byte{1}))
	})
	if err != nil {
		return fmt.Errorf("forget expired mappings: %w", err)
	}
	return nil
}

// forgot reports whether lines were ever dropped in this boot.
func (j *journal) forgot() (forgot bool) {
	_ = j.db.View(func(tx *bbolt.Tx) error { // never fails while it is open
		forgot = tx.Bucket(metaBucket).Get(forgotKey) != nil
		return nil
	})
	return forgot
}

type expiredLine struct {
	key []byte
	at  uint64
}

// expiredLines returns the lines that expired before a time, and how many lines there are over the room.
func expiredLines(bucket *bbolt.Bucket, before uint64, room int) (expired []expiredLine, over int, err error) {
	if over = bucket.Stats().KeyN - room; over <= 0 {
		return nil, over, nil
	}
	err = bucket.ForEach(func(key, value []byte) error {
		if head, _, whole := decodeHead(value); !whole || head.ExpiresAt <= before {
			expired = append(expired, expiredLine{key, head.ExpiresAt})
		}
		return nil
	})
	return expired, over, err
}
