package datapath

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"net/netip"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/dataplane/observe"
)

// Each value of the journal begins with a checksum of its key and itself: bbolt has none, and a line in
// which one bit is wrong would open a door that no answer opened.

const sealSize = 4

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)

	errUnsealed = errors.New("a line is damaged")
)

func seal(key, value []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, sumOf(key, value)), value...)
}

func unseal(key, sealed []byte) ([]byte, error) {
	if len(sealed) < sealSize || binary.LittleEndian.Uint32(sealed) != sumOf(key, sealed[sealSize:]) {
		return nil, errUnsealed
	}
	return sealed[sealSize:], nil
}

func sumOf(key, value []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, value)
}

// journalHead is the fixed part of a line, all times in nanoseconds of the boot clock; before the boot they
// are negative. Behind it come the names of the chain in wire form, and behind a root name those of earlier
// chains.
type journalHead struct {
	ExpiresAt, FirstSeen, LastSeen int64
	AnsweredAt                     int64 // 0: never
	Client                         [16]byte
}

const journalHeadSize = 4*8 + 16

// sealed returns the line of a head and names.
func (h *journalHead) sealed(key, names []byte) []byte {
	line := make([]byte, sealSize, sealSize+journalHeadSize+len(names))
	for _, at := range [...]int64{h.ExpiresAt, h.FirstSeen, h.LastSeen, h.AnsweredAt} {
		line = binary.LittleEndian.AppendUint64(line, uint64(at)) //nolint:gosec // all bits come back
	}
	line = append(append(line, h.Client[:]...), names...)
	binary.LittleEndian.PutUint32(line, sumOf(key, line[sealSize:]))
	return line
}

func journalKey(asked domain.Name, a netip.Addr) []byte {
	address := a.As16()
	return append(asked.AppendWire(make([]byte, 0, len(asked.String())+2+len(address))), address[:]...)
}

// headOf returns the head of a line, and what comes behind it.
func headOf(key, sealed []byte) (head journalHead, names []byte, err error) {
	line, err := unseal(key, sealed)
	if err != nil {
		return head, nil, err
	}
	if len(line) < journalHeadSize || len(key) < 16 {
		return head, nil, errors.New("line is cut short")
	}
	for i, at := range [...]*int64{&head.ExpiresAt, &head.FirstSeen, &head.LastSeen, &head.AnsweredAt} {
		*at = int64(binary.LittleEndian.Uint64(line[8*i:])) //nolint:gosec // as they were written
	}
	copy(head.Client[:], line[4*8:])
	return head, line[journalHeadSize:], nil
}

// journalTotal is what a journal has, so that one that lost a line is known from one that never had it.
type journalTotal struct{ Lines, Sum uint64 }

// journalLines is the lines of a transaction, with their total.
type journalLines struct {
	bucket *bbolt.Bucket
	cursor *bbolt.Cursor // used anew it allocates nothing, as Bucket.Get does
	journalTotal
}

func linesIn(bucket *bbolt.Bucket) journalLines {
	return journalLines{bucket: bucket, cursor: bucket.Cursor()}
}

// get returns the line of a key, until the next change; nil: it has none.
func (l *journalLines) get(key []byte) []byte {
	found, sealed := l.cursor.Seek(key)
	if !bytes.Equal(found, key) {
		return nil
	}
	return sealed
}

func linesOf(tx *bbolt.Tx) (lines journalLines, err error) {
	lines = linesIn(tx.Bucket(mappingsBucket))
	record, err := getMeta(tx, totalKey)
	if err != nil {
		return lines, err
	}
	if _, err := binary.Decode(record, binary.LittleEndian, &lines.journalTotal); err != nil {
		return lines, errUnsealed
	}
	return lines, nil
}

// keep writes the total down.
func (l *journalLines) keep(tx *bbolt.Tx) error {
	record, err := binary.Append(nil, binary.LittleEndian, l.journalTotal)
	return errors.Join(err, putMeta(tx, totalKey, record))
}

func (t *journalTotal) add(sealed []byte) {
	t.Lines++
	t.Sum += uint64(binary.LittleEndian.Uint32(sealed))
}

// forget takes out a line, if there is one.
func (t *journalTotal) forget(sealed []byte) {
	if sealed == nil {
		return
	}
	t.Lines--
	t.Sum -= uint64(binary.LittleEndian.Uint32(sealed))
}

func (l *journalLines) remove(key []byte) error {
	l.forget(l.get(key))
	return l.bucket.Delete(key)
}

// replace writes a line in place of the one that its key had; nil: it had none.
func (l *journalLines) replace(old, key []byte, head journalHead, names []byte) error {
	l.forget(old)
	sealed := head.sealed(key, names)
	l.add(sealed)
	return l.bucket.Put(key, sealed)
}

func (l *journalLines) putAnswer(a learned, address observe.Address, c clock) error {
	seen := c.onBoot(a.LearnedAt)
	head := journalHead{ExpiresAt: c.onBoot(a.ExpiresAt), FirstSeen: seen, LastSeen: seen, Client: a.Client.As16()}
	if a.Question == observe.QuestionFor(address.Address) {
		head.AnsweredAt = seen
	}
	key := journalKey(a.Names[0], address.Address)
	var names journalNames
	line := l.get(key)
	if line != nil {
		old, rest, err := headOf(key, line)
		if err != nil {
			return err
		}
		names = splitNames(rest)
		head.ExpiresAt = max(head.ExpiresAt, old.ExpiresAt)
		head.FirstSeen = min(head.FirstSeen, old.FirstSeen)
		if old.AnsweredAt != 0 && (head.AnsweredAt == 0 || old.AnsweredAt > head.AnsweredAt) {
			head.AnsweredAt = old.AnsweredAt
		}
	}
	chain := a.Names[1:address.Names]
	return l.replace(line, key, head, names.appendFormer(wireOf(chain), chain))
}

// putKnown writes a mapping as it is known, whatever the line said.
func (l *journalLines) putKnown(m *observe.Mapping, c clock) error {
	head := journalHead{
		ExpiresAt: c.onBoot(m.ExpiresAt), FirstSeen: c.onBoot(m.FirstSeen), LastSeen: c.onBoot(m.LastSeen), Client: m.Client.As16(),
	}
	if !m.AnsweredAt.IsZero() {
		head.AnsweredAt = c.onBoot(m.AnsweredAt)
	}
	var former journalNames
	for _, alias := range m.Former {
		former.former = append(former.former, alias.Name.Wire())
	}
	key := journalKey(m.Domain, m.Address)
	return l.replace(l.get(key), key, head, former.appendFormer(wireOf(m.Chain), m.Chain))
}

func wireOf(names []domain.Name) []byte {
	bytes := 0
	for _, name := range names {
		bytes += len(name.String()) + 2
	}
	wire := make([]byte, 0, bytes)
	for _, name := range names {
		wire = name.AppendWire(wire)
	}
	return wire
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

func decodeMapping(key, line []byte, c clock) (m observe.Mapping, former []domain.Name, err error) {
	head, rest, err := headOf(key, line)
	if err != nil {
		return m, nil, err
	}
	asked, err := domain.FromWire(key[:len(key)-16])
	if err != nil {
		return m, nil, err
	}
	m = observe.Mapping{
		Domain:    asked,
		Address:   netip.AddrFrom16([16]byte(key[len(key)-16:])).Unmap(),
		Client:    netip.AddrFrom16(head.Client).Unmap(),
		FirstSeen: c.since(head.FirstSeen),
		LastSeen:  c.since(head.LastSeen),
		ExpiresAt: c.since(head.ExpiresAt),
	}
	if head.AnsweredAt != 0 {
		m.AnsweredAt = c.since(head.AnsweredAt)
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
