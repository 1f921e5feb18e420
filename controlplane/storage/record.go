package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A record on disk is the CRC-32C of the rest and of the key, the revision (both big-endian), and the protobuf bytes
// of the object. What holds it checks its own pages but not what it stores, and protobuf reads much damage
// without complaint.
const headerSize = 4 + 8

// RecordSize returns the size of the record of a value.
func RecordSize(value []byte) int { return headerSize + len(value) }

// Encode returns the record as it lies on disk.
func (r Record) Encode() []byte {
	record := make([]byte, headerSize, headerSize+len(r.Value))
	binary.BigEndian.PutUint64(record[4:], r.Revision)
	record = append(record, r.Value...)
	binary.BigEndian.PutUint32(record, checksum(r.Key, record[4:]))
	return record
}

// DecodeRecord reads what Encode made. It copies the value.
func DecodeRecord(key string, record []byte) (Record, error) {
	if len(record) < headerSize {
		return Record{}, Corrupt(key, fmt.Sprintf("%d bytes are less than a header", len(record)))
	}
	if binary.BigEndian.Uint32(record) != checksum(key, record[4:]) {
		return Record{}, Corrupt(key, "the checksum does not fit")
	}
	return Record{Key: key, Revision: binary.BigEndian.Uint64(record[4:]), Value: bytes.Clone(record[headerSize:])}, nil
}

// checksum covers the key too: a value must not be read as that of another object.
func checksum(key string, rest []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum([]byte(key), table), table, rest)
}

// Corrupt returns an ErrCorrupt that names the key.
func Corrupt(key, reason string) error {
	return fmt.Errorf("%w: %q: %s", ErrCorrupt, key, reason)
}
