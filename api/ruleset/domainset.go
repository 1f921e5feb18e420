package ruleset

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"regexp"
	"slices"
	"strings"

	"github.com/nameward/nameward/api/domain"
)

// DomainSet is a named list of domain patterns that rules share. It is immutable.
type DomainSet struct {
	// Name is the resource name, `domainSets/{domain_set}`.
	Name string
	// Domains are sorted by their text, without duplicates.
	Domains []domain.Pattern

	known *contents // nil in a literal
}

// contents is what is computed once of a list of domains.
type contents struct {
	digest  setDigest
	general []domain.Pattern
	room    int
}

// domainSetName is the constraint of domain_set.proto on `name`.
var domainSetName = regexp.MustCompile(`^domainSets/[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// badDomainSetName says what a name of a domain set must be.
const badDomainSetName = "is not `domainSets/` and 1 to 63 lower-case letters, digits, `-` and `.`, a letter or a digit first and last"

// CheckDomainSetName returns a *FieldError on the field when the value is no name of a domain set.
func CheckDomainSetName(field, value string) error {
	if !domainSetName.MatchString(value) {
		return &FieldError{field, value, badDomainSetName}
	}
	return nil
}

// NewDomainSet makes a set of domains in any order, duplicates allowed. It sorts them in place and keeps
// the slice.
func NewDomainSet(name string, domains []domain.Pattern) DomainSet {
	domains = sorted(domains, comparePatterns)
	return withContents(name, domains, setDigest{}.with(domains))
}

func comparePatterns(a, b domain.Pattern) int { return cmp.Compare(a.String(), b.String()) }

// Edited returns the set that has what the map says true of, and has not what it says false of. It costs
// a copy of the list, and a digest of each domain that comes or goes.
func (s DomainSet) Edited(edits map[domain.Pattern]bool) DomainSet {
	known := *s.contents()
	var changes, general []domain.Pattern
	for pattern, wanted := range edits {
		if s.Has(pattern) == wanted {
			continue
		}
		changes = append(changes, pattern)
		if pattern.General() {
			general = append(general, pattern)
		}
		if wanted {
			known.digest.add(pattern)
			known.room += Room(pattern)
		} else {
			known.digest.remove(pattern)
			known.room -= Room(pattern)
		}
	}
	if len(changes) == 0 {
		return s
	}
	if len(general) > 0 {
		known.general = toggled(known.general, general)
	}
	return DomainSet{s.Name, toggled(s.Domains, changes), &known}
}

// toggled returns a sorted list without those of the changes that it has, and with the others. It copies what
// is between them, whose texts it does not compare.
func toggled(list, changes []domain.Pattern) []domain.Pattern {
	slices.SortFunc(changes, comparePatterns)
	next := make([]domain.Pattern, 0, len(list)+len(changes))
	for _, pattern := range changes {
		at, has := slices.BinarySearchFunc(list, pattern, comparePatterns)
		next = append(next, list[:at]...)
		if has {
			at++
		} else {
			next = append(next, pattern)
		}
		list = list[at:]
	}
	return append(next, list...)
}

// Has reports whether the set has the pattern itself.
func (s DomainSet) Has(pattern domain.Pattern) bool {
	_, found := s.find(pattern.String())
	return found
}

// General returns the patterns of the set that names are held against one by one. The slice is the set's.
func (s DomainSet) General() []domain.Pattern { return s.contents().general }

// Room returns the sum of the Room of the domains.
func (s DomainSet) Room() int { return s.contents().room }

// Match returns the first pattern found that matches the name.
func (s DomainSet) Match(name domain.Name) (domain.Pattern, bool) {
	if i, found := s.find("*"); found {
		return s.Domains[i], true
	}
	text := name.String()
	for candidate := text; ; candidate = "*." + text {
		if i, found := s.find(candidate); found && s.Domains[i].Match(name) {
			return s.Domains[i], true
		}
		_, parent, below := strings.Cut(text, ".")
		if !below || parent == "" {
			break
		}
		text = parent
	}
	for _, pattern := range s.contents().general {
		if pattern.Match(name) {
			return pattern, true
		}
	}
	return domain.Pattern{}, false
}

// Matching returns every pattern of the set that matches the name, sorted by its text.
func (s DomainSet) Matching(name domain.Name) []domain.Pattern {
	found := []domain.Pattern{}
	add := func(text string) {
		if i, ok := s.find(text); ok && s.Domains[i].Match(name) {
			found = append(found, s.Domains[i])
		}
	}
	add("*")
	add(name.String())
	for rest, below := name.String(), true; below; {
		if _, rest, below = strings.Cut(rest, "."); below {
			add("*." + rest)
		}
	}
	for _, pattern := range s.contents().general {
		if pattern.Match(name) {
			found = append(found, pattern)
		}
	}
	return sorted(found, comparePatterns)
}

func (s DomainSet) find(text string) (int, bool) {
	return slices.BinarySearchFunc(s.Domains, text, func(p domain.Pattern, text string) int { return cmp.Compare(p.String(), text) })
}

// Same reports whether the sets have the same domains, whatever their names.
func (s DomainSet) Same(other DomainSet) bool {
	return len(s.Domains) == len(other.Domains) && s.contents().digest == other.contents().digest
}

func (s DomainSet) contents() *contents {
	if s.known == nil {
		return withContents(s.Name, s.Domains, setDigest{}.with(s.Domains)).known
	}
	return s.known
}

func withContents(name string, domains []domain.Pattern, digest setDigest) DomainSet {
	known := &contents{digest: digest}
	for _, pattern := range domains {
		known.room += Room(pattern)
		if pattern.General() {
			known.general = append(known.general, pattern)
		}
	}
	return DomainSet{name, domains, known}
}

// setDigest identifies the domains of a set: the sum, modulo 2^256, of the SHA-256 digests of their texts.
// So it follows a change of a set of a million at the cost of the change.
type setDigest [4]uint64

// with returns the digest of what d is of and of patterns, none of which is there twice.
func (d setDigest) with(patterns []domain.Pattern) setDigest {
	for _, pattern := range patterns {
		d.add(pattern)
	}
	return d
}

func (d *setDigest) add(pattern domain.Pattern) {
	var carry uint64
	for i, word := range digestOf(pattern) {
		d[i], carry = bits.Add64(d[i], word, carry)
	}
}

func (d *setDigest) remove(pattern domain.Pattern) {
	var borrow uint64
	for i, word := range digestOf(pattern) {
		d[i], borrow = bits.Sub64(d[i], word, borrow)
	}
}

func digestOf(pattern domain.Pattern) (words setDigest) {
	sum := sha256.Sum256([]byte(pattern.String()))
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(sum[8*i:])
	}
	return words
}
