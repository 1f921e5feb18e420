package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// Parts of a DNS message.
const (
	headerBytes    = 12
	answersAt      = 6 // how many records the answer section has
	typeA          = 1
	classIN        = 1
	wantsRecursion = 0x0100
)

// appendQuestion appends a query for the IPv4 addresses of a name.
func appendQuestion(buffer []byte, id uint16, name string) []byte {
	buffer = binary.BigEndian.AppendUint16(buffer, id)
	buffer = binary.BigEndian.AppendUint16(buffer, wantsRecursion)
	buffer = append(buffer, 0, 1, 0, 0, 0, 0, 0, 0)
	for label := range strings.SplitSeq(name, ".") {
		buffer = append(append(buffer, byte(len(label))), label...)
	}
	return append(buffer, 0, 0, typeA, 0, classIN)
}

var errOtherAnswer = errors.New("another answer than expected")

// checkAnswer tells whether a message answers a query with one address.
func checkAnswer(message []byte, id uint16, want netip.Addr) error {
	if !hasAnswer(message) || binary.BigEndian.Uint16(message) != id || len(message) < headerBytes+4 {
		return fmt.Errorf("%w: %x", errOtherAnswer, message)
	}
	// The record is the last thing in it.
	if got := netip.AddrFrom4([4]byte(message[len(message)-4:])); got != want {
		return fmt.Errorf("%w: %s, want %s", errOtherAnswer, got, want)
	}
	return nil
}

// hasAnswer tells whether a message has records that answer its question.
func hasAnswer(message []byte) bool {
	return len(message) >= headerBytes && binary.BigEndian.Uint16(message[answersAt:]) > 0
}
