package bpf_test

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
)

// A wireName is a name's labels, of any bytes.
type wireName [][]byte

func nameOf(text string) wireName {
	var name wireName
	for label := range strings.SplitSeq(text, ".") {
		if label != "" {
			name = append(name, []byte(label))
		}
	}
	return name
}

// bytes is how long the name is in wire form.
func (n wireName) bytes() int {
	length := 1
	for _, label := range n {
		length += 1 + len(label)
	}
	return length
}

func (n wireName) wire() []byte {
	wire := make([]byte, 0, 256)
	for _, label := range n {
		wire = append(append(wire, byte(len(label))), label...)
	}
	return append(wire, 0)
}

// key is equal for names that are one, whatever their case. That of a suffix is the end of it.
func (n wireName) key() string {
	key := n.wire()
	for i, b := range key { // no length octet is a letter
		if 'A' <= b && b <= 'Z' {
			key[i] += 'a' - 'A'
		}
	}
	return string(key)
}

// A vocabulary is what names and patterns of a few scripts are made of: little, so that they meet.
type vocabulary struct {
	*rand.Rand
	labels, bases, affixes []string
}

func newVocabulary(random *rand.Rand) *vocabulary {
	return &vocabulary{
		Rand:    random,
		labels:  []string{"a", "b", "www", "api", "s3-eu", "ab", "aab", "x1", "_dmarc", "-", "xn--bcher-kva", strings.Repeat("l", 63)},
		bases:   []string{"example.com", "cdn.test", "com", "a.b.c.d", "api.example.com", "b.cdn.test", strings.Repeat("deep.", 20) + "test"},
		affixes: []string{"a", "b", "s3-", "w", "ab"},
	}
}

func pick[T any](random *rand.Rand, of []T) T { return of[random.IntN(len(of))] }

// in reports true so many times of a hundred.
func (v *vocabulary) in(percent int) bool { return v.IntN(100) < percent }

func (v *vocabulary) some(least, most int) []string {
	var labels []string
	for range least + v.IntN(most-least+1) {
		labels = append(labels, pick(v.Rand, v.labels))
	}
	return labels
}

// patterns gives a few patterns of every form.
func (v *vocabulary) patterns() []domain.Pattern {
	var patterns []domain.Pattern
	general := 0
	for range 3 + v.IntN(18) {
		base := pick(v.Rand, v.bases)
		if v.in(10) {
			base = ""
		}
		head, affix := v.some(0, 2), pick(v.Rand, v.affixes)
		labels := []string{}
		switch v.IntN(9) {
		case 0, 1:
			labels = append(head, base)
		case 2, 3:
			labels = []string{"*", base}
		case 4:
			labels = slices.Concat(v.some(1, 2), []string{"*", base})
		case 5:
			labels = slices.Concat(head, []string{affix + "*" + pick(v.Rand, []string{"", "b"}), base})
		case 6:
			labels = slices.Concat([]string{"*"}, head, []string{"*" + affix, base})
		case 7:
			labels = slices.Concat([]string{"*"}, head, []string{affix + "*", base})
		case 8:
			if v.in(15) {
				labels = []string{"*"}
			}
		}
		text := strings.Trim(strings.Join(labels, "."), ".")
		pattern, err := domain.ParsePattern(text)
		if err != nil || slices.Contains(patterns, pattern) {
			continue
		}
		if pattern.General() {
			if general++; general > 12 { // 16 names may have no more match sets than there is room for
				continue
			}
		}
		patterns = append(patterns, pattern)
	}
	return patterns
}

// names gives names that the patterns match, and others like them.
func (v *vocabulary) names(patterns []domain.Pattern) []wireName {
	names := []wireName{{}, nameOf("example.com"), nameOf(strings.Repeat("n.", 127)), v.lengthy(255), v.lengthy(250 + v.IntN(6))}
	for _, pattern := range patterns {
		for range 2 {
			names = append(names, v.vary(v.matching(pattern)))
		}
	}
	for range 6 {
		names = append(names, v.vary(nameOf(strings.Join(append(v.some(0, 3), pick(v.Rand, v.bases)), "."))))
	}
	return slices.DeleteFunc(names, func(n wireName) bool { return n.bytes() > 255 })
}

// lengthy gives a name of so many bytes, below a base. One of more than 255 is none.
func (v *vocabulary) lengthy(bytes int) wireName {
	name := nameOf(pick(v.Rand, v.bases))
	for left := bytes - name.bytes(); left > 1; left = bytes - name.bytes() {
		length := min(left-1, 1+v.IntN(63))
		if left-1-length == 1 { // no label fits into one byte
			length = max(1, length-1)
		}
		name = slices.Insert(name, 0, slices.Repeat([]byte{'q'}, length))
	}
	return name
}

// matching gives a name that the pattern matches.
func (v *vocabulary) matching(pattern domain.Pattern) wireName {
	var labels []string
	for label := range strings.SplitSeq(pattern.String(), ".") {
		switch {
		case label == "*":
			labels = append(labels, v.some(1, 3)...)
		case strings.Contains(label, "*"):
			labels = append(labels, strings.Replace(label, "*", pick(v.Rand, []string{"", "x", "eu-1", "a*", "ab"}), 1))
		default:
			labels = append(labels, label)
		}
	}
	return nameOf(strings.Join(labels, "."))
}

// name picks one of the names, or one about as long as a name may be.
func (v *vocabulary) name(names []wireName) wireName {
	if v.in(2) {
		return v.lengthy(253 + v.IntN(5))
	}
	return pick(v.Rand, names)
}

// vary changes a name in its labels, more often not.
func (v *vocabulary) vary(name wireName) wireName {
	switch v.IntN(12) {
	case 0: // any byte
		if len(name) > 0 {
			at := v.IntN(len(name))
			name[at] = slices.Clone(name[at])
			name[at][v.IntN(len(name[at]))] = byte(v.Uint32())
		}
	case 1:
		name = slices.Insert(name, 0, []byte(pick(v.Rand, v.labels)))
	case 2:
		if len(name) > 1 {
			name = name[1:]
		}
	case 3: // labels become one
		if len(name) > 2 && len(name[0])+len(name[1]) < 63 {
			name = append(wireName{bytes.Join(name[:2], []byte("."))}, name[2:]...)
		}
	case 4: // all bytes, over a few names
		label := make([]byte, 1+v.IntN(63))
		first := byte(v.Uint32())
		for i := range label {
			label[i] = first + byte(i)
		}
		name = append(wireName{label}, name...)
	}
	return name
}
