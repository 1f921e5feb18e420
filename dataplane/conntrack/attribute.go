package conntrack

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Attributes of a connection (linux/netfilter/nfnetlink_conntrack.h).
const (
	attrOriginal   = 1
	attrReply      = 2
	attrStatus     = 3
	attrProtoInfo  = 4
	attrTimeout    = 7
	attrMark       = 8
	attrID         = 12
	attrMaster     = 14
	attrZone       = 18
	attrLabels     = 22
	attrLabelsMask = 23
)

// Attributes of a tuple, and of its two halves.
const (
	attrTupleIP       = 1
	attrTupleProtocol = 2
	attrTupleHalf     = 8 // bits to tell which half an attribute is of

	attrSourceV4      = 1
	attrDestinationV4 = 2
	attrSourceV6      = 3
	attrDestinationV6 = 4

	attrProtocolNumber  = 1
	attrSourcePort      = 2
	attrDestinationPort = 3
)

// Attributes of a TCP connection, and states of one (linux/netfilter/nf_conntrack_tcp.h).
const (
	attrTCP      = 1
	attrTCPState = 1
	attrTCPFlags = 4 // of the direction in which it was opened; the next, of the other: flags, and which of them count

	tcpTimeWait = 7
	tcpClose    = 8
)

// Bits of attrStatus (linux/netfilter/nf_conntrack_common.h).
const (
	statusExpected  = 1 << 0
	statusConfirmed = 1 << 3
	statusSourceNAT = 1 << 4
	statusDestNAT   = 1 << 5
	statusOffload   = 1 << 14
	statusHWOffload = 1 << 15
)

const (
	attrHeader   = 4
	attrTypeMask = 0x3fff // without the flags of nesting and byte order
)

// attribute is one of a message: its type, its value, and both with the header, padded.
type attribute struct {
	kind  uint16
	value []byte
	whole []byte
}

// attributes yields what a message or a nested attribute holds; what is cut short ends it.
func attributes(b []byte) iter.Seq[attribute] {
	return func(yield func(attribute) bool) {
		for len(b) >= attrHeader {
			length := int(binary.NativeEndian.Uint16(b))
			if length < attrHeader || length > len(b) {
				return
			}
			padded := min((length+3)&^3, len(b))
			kind := binary.NativeEndian.Uint16(b[2:]) & attrTypeMask
			if !yield(attribute{kind, b[attrHeader:length], b[:padded]}) {
				return
			}
			b = b[padded:]
		}
	}
}

// appendAttribute writes one of a type, padded.
func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrHeader+len(value))) //nolint:gosec // a few bytes
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	return append(b, make([]byte, -len(value)&3)...)
}

// head is struct nfgenmsg, which begins each message.
func head(family uint8) []byte { return []byte{family, unix.NFNETLINK_V0, 0, 0} }
