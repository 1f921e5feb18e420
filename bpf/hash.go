package bpf

import "encoding/binary"

// HashKey is settings.hash_key: random, and fixed for as long as name_index and mappings live.
type HashKey [4]uint64

// SuffixHashes hashes every suffix of a name as dns.h does, the whole name first. The name is in
// canonical wire form: length octets and lower-case labels, with or without the root label.
func (k HashKey) SuffixHashes(name []byte) []uint64 {
	var hashes []uint64
	for len(name) > 0 && name[0] > 0 {
		label := name[1 : 1+int(name[0])]
		name = name[1+len(label):]
		hashes = append(hashes, k.label(label))
	}
	suffix := k[3]
	for i := len(hashes) - 1; i >= 0; i-- {
		suffix = k.mix(suffix, hashes[i])
		hashes[i] = suffix
	}
	return hashes
}

func (k HashKey) label(label []byte) uint64 {
	hash := k[0] ^ uint64(len(label))
	for len(label) > 0 {
		var word [8]byte
		label = label[copy(word[:], label):]
		hash = k.mix(hash, binary.LittleEndian.Uint64(word[:]))
	}
	return hash
}

// Both multipliers are secret, so that no one can choose names that collide.
func (k HashKey) mix(hash, word uint64) uint64 {
	word *= k[1] | 1
	word ^= word >> 32
	hash = (hash ^ word) * (k[2] | 1)
	return hash ^ hash>>29
}

// QuestionHash is what places in answers and the questions in queries are made of: whole is the
// hash of the name, low a type, or a type << 16 | class.
func (k HashKey) QuestionHash(whole, low uint64) uint64 {
	return k.mix(whole, low)
}

// AnswerBucket is which of so many buckets of answers has the answer to a question.
func AnswerBucket(question uint64, buckets uint32) uint32 {
	return uint32((question >> 32) * uint64(buckets) >> 32) //nolint:gosec // below buckets
}

// AnswerTo gives when the answer to a question expires, in ticks, and whether a bucket has it.
func (b *DatapathAnswerBucket) AnswerTo(question uint64) (expires uint64, found bool) {
	const ofQuestion = 1<<DatapathAnswerLimitANSWER_QUESTION_BITS - 1
	for _, slot := range b.Slots {
		if slot.Content > 1 && (slot.Content^question)&ofQuestion == 0 {
			return slot.Times >> DatapathAnswerLimitANSWER_UNTOLD_BITS, true
		}
	}
	return 0, false
}
