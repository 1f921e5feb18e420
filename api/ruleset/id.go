package ruleset

import (
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
)

// ID identifies a rule set by its content. Equal ids mean that there is nothing to do.
type ID [sha256.Size]byte

// ParseID reads an id of the wire.
func ParseID(b []byte) (ID, error) {
	if len(b) != sha256.Size {
		return ID{}, fmt.Errorf("read rule set id: %d bytes are not %d", len(b), sha256.Size)
	}
	return ID(b), nil
}

// String returns the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether id is that of no rule set.
func (id ID) IsZero() bool { return id == ID{} }

// ID returns the SHA-256 digest of the rule set's canonical form: every field of every policy in the
// order of the Go types, numbers as 8 bytes big-endian, each text and list preceded by its length; of a
// domain set, the count of its domains and the sum of their digests. Not protobuf bytes, which are not
// canonical.
func (rs *RuleSet) ID() ID {
	d := digest{hash: sha256.New()}
	d.number(len(rs.Policies))
	for _, p := range rs.Policies {
		d.policy(p)
	}
	return d.id(rs.DomainSets)
}

// Canonical returns the part of a policy in the canonical form of a rule set, for a Hasher.
func (p Policy) Canonical() []byte {
	d := digest{}
	d.policy(p)
	return d.buffer
}

// Hasher makes the id of a rule set of the canonical forms of its policies: the same as ID, for who has thousands of
// policies of which few change.
type Hasher struct{ d digest }

// NewHasher begins the id of a rule set of so many policies.
func NewHasher(policies int) *Hasher {
	h := &Hasher{digest{hash: sha256.New()}}
	h.d.number(policies)
	return h
}

// Policy takes in the canonical form of the next policy in order of evaluation.
func (h *Hasher) Policy(canonical []byte) {
	if len(canonical) < hashedAtOnce {
		h.d.buffer = append(h.d.buffer, canonical...)
		h.d.flush()
		return
	}
	h.d.hash.Write(h.d.buffer)
	h.d.hash.Write(canonical)
	h.d.buffer = h.d.buffer[:0]
}

// ID ends with the domain sets, in order of their names. Nothing may be taken in afterwards.
func (h *Hasher) ID(sets []DomainSet) ID { return h.d.id(sets) }

// Mark is a place among the policies of a rule set from which a Hasher can go on, as often as one likes. It is immutable.
type Mark struct{ state []byte }

// Mark returns the place behind the last policy that was taken in.
func (h *Hasher) Mark() (Mark, error) {
	h.d.hash.Write(h.d.buffer)
	h.d.buffer = h.d.buffer[:0]
	state, err := h.d.hash.(encoding.BinaryMarshaler).MarshalBinary() // crypto/sha256 promises it
	if err != nil {
		return Mark{}, fmt.Errorf("mark a place in a rule set id: %w", err)
	}
	return Mark{state}, nil
}

// Hasher returns one that goes on from the mark, in a rule set of as many policies.
func (m Mark) Hasher() (*Hasher, error) {
	h := &Hasher{digest{hash: sha256.New()}}
	if err := h.d.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(m.state); err != nil {
		return nil, fmt.Errorf("go on with a rule set id: %w", err)
	}
	return h, nil
}

func (d *digest) policy(p Policy) {
	d.text(p.Name)
	d.number(int(p.Priority))
	d.number(int(p.Mode))
	d.number(int(p.Established))
	d.number(len(p.Workloads))
	for _, w := range p.Workloads {
		d.list(texts(w.CIDRs))
		d.text(w.Interface)
		d.flag(w.Host)
		d.flag(w.UID != nil)
		if w.UID != nil {
			d.number(int(*w.UID))
		}
		d.text(w.Cgroup)
		d.text(w.Unit)
	}
	d.number(len(p.Rules))
	for _, r := range p.Rules {
		d.rule(r)
	}
}

// id ends the digest with the domain sets.
func (d *digest) id(sets []DomainSet) ID {
	d.number(len(sets))
	for _, set := range sets {
		d.text(set.Name)
		d.number(len(set.Domains))
		for _, word := range set.contents().digest {
			d.number(int(word)) //nolint:gosec // the bits are meant
		}
	}
	d.hash.Write(d.buffer)
	return ID(d.hash.Sum(nil))
}

// digest gathers what is to be hashed: the numbers and texts are many and short.
type digest struct {
	hash   hash.Hash // nil: all stays in buffer
	buffer []byte
}

const (
	digestBuffer = 4096
	hashedAtOnce = 256 // from which length on it costs more to gather texts than to hash them one by one
)

func (d *digest) flush() {
	if d.hash != nil && len(d.buffer) >= digestBuffer {
		d.hash.Write(d.buffer)
		d.buffer = d.buffer[:0]
	}
}

func (d *digest) rule(r Rule) {
	d.number(int(r.Action))
	d.list(texts(r.Domains))
	d.list(r.DomainSets)
	d.list(texts(r.CIDRs))
	d.number(len(r.Ports))
	for _, p := range r.Ports {
		d.number(int(p.Protocol))
		d.number(int(p.First))
		d.number(int(p.Last))
	}
	d.flag(r.RefusesQueries)
}

func (d *digest) number(n int) {
	d.buffer = binary.BigEndian.AppendUint64(d.buffer, uint64(n)) //nolint:gosec // two's complement is as canonical
	d.flush()
}

func (d *digest) flag(set bool) {
	if set {
		d.number(1)
		return
	}
	d.number(0)
}

func (d *digest) text(s string) {
	d.number(len(s))
	d.buffer = append(d.buffer, s...)
	d.flush()
}

func (d *digest) list(list []string) {
	d.number(len(list))
	for _, s := range list {
		d.text(s)
	}
}
