package bpf

import (
	"crypto/sha256"
	"encoding/hex"
)

// Build identifies the compiled programs: equal builds are equal programs. It goes into the names of
// their pins, since a pin that an iptables rule names must never hold another program.
func Build() string {
	digest := sha256.Sum256(_DatapathBytes)
	return hex.EncodeToString(digest[:6])
}
