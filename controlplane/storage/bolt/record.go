package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/nameward/nameward/controlplane/storage"
)

// A record is the CRC-32C of the rest and of the key, the revision (both big-endian), and the protobuf bytes
// of the object. bbolt checks its own meta pages but not what it stores, and protobuf reads much damage
// without complaint.
const headerSize = 4 + 8

func encode(key string, revision uint64, value []byte) []byte {
	record := make([]byte, headerSize, headerSize+len(value))
	binary.BigEndian.PutUint64(record[4:], revision)
	record = append(record, value...)
	binary.BigEndian.PutUint32(record, checksum([]byte(key), record[4:]))
	return record
}

// decode copies the value: bbolt's memory is gone after the transaction.
func decode(key, record []byte) (storage.Record, error) {
	if len(record) < headerSize {
		return storage.Record{}, corrupt(key, fmt.Sprintf("%d bytes are less than a header", len(record)))
	}
	if binary.BigEndian.Uint32(record) != checksum(key, record[4:]) {
		return storage.Record{}, corrupt(key, "the checksum does not fit")
	}
	return storage.Record{
		Key:      string(key),
		Revision: binary.BigEndian.Uint64(record[4:]),
		Value:    bytes.Clone(record[headerSize:]),
	}, nil
}

// checksum covers the key too: a value must not be read as that of another object.
func checksum(key, rest []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(key, table), table, rest)
}

func corrupt(key []byte, reason string) error {
	return fmt.Errorf("%w: %q: %s", storage.ErrCorrupt, key, reason)
}
