package names

import (
	"math/rand/v2"
	"slices"
	"strings"
)

// seed makes every run's names the same.
const seed = 20260101

// suffixes are those under which names are registered, each as often as about one in a thousand names of
// popular sites has it.
var suffixes = []weighted{
	{"com", 460},
	{"net", 52},
	{"org", 48},
	{"ru", 38},
	{"de", 34},
	{"co.uk", 22},
	{"com.br", 20},
	{"jp", 14},
	{"co.jp", 14},
	{"io", 16},
	{"fr", 16},
	{"it", 14},
	{"nl", 13},
	{"cn", 12},
	{"com.cn", 8},
	{"in", 12},
	{"com.au", 11},
	{"pl", 11},
	{"es", 10},
	{"ca", 9},
	{"info", 9},
	{"eu", 8},
	{"ir", 8},
	{"edu", 8},
	{"ch", 6},
	{"cz", 6},
	{"gr", 5},
	{"se", 6},
	{"be", 5},
	{"co.kr", 5},
	{"xyz", 7},
	{"online", 5},
	{"app", 6},
	{"dev", 5},
	{"me", 6},
	{"tv", 5},
	{"us", 5},
	{"co", 6},
	{"ac.uk", 3},
	{"gov", 3},
	{"k12.ca.us", 1},
	{"cloud", 4},
	{"shop", 4},
	{"com.tr", 5},
	{"com.mx", 5},
	{"ua", 4},
	{"at", 4},
	{"biz", 3},
	{"vn", 4},
	{"id", 5},
}

// hosts are the labels in front of a registered name; "" stands for none. Others are made up.
var hosts = []weighted{
	{"", 420},
	{"www", 160},
	{"api", 40},
	{"cdn", 35},
	{"mail", 25},
	{"static", 22},
	{"img", 20},
	{"m", 18},
	{"blog", 14},
	{"app", 14},
	{"login", 10},
	{"shop", 10},
	{"docs", 8},
	{"assets", 14},
	{"images", 10},
	{"dev", 6},
	{"support", 6},
	{"edge", 8},
	{"s3.eu-west-1", 4},
	{"eu-central-1.elb", 4},
	{"*", 152},
}

// Generate makes names alike those that are asked for on real networks: in how long labels are and what they
// are made of, under which suffixes they lie, how many labels they have, and in that some domains have many
// names and most have few. No name comes twice; the same number gives the same names.
func Generate(count int) []string {
	list := Supplement(nil, count)
	random := newRandom()
	random.Shuffle(count, func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// Supplement adds made names to a list that has fewer than there are to be.
func Supplement(list []string, count int) []string {
	g := newGenerator()
	known := make(map[string]struct{}, count)
	for _, name := range list {
		known[name] = struct{}{}
	}
	for len(list) < count {
		registered := g.registered()
		for range g.hostsOf() {
			name := g.host() + registered
			if _, again := known[name]; !again && len(list) < count {
				known[name] = struct{}{}
				list = append(list, name)
			}
		}
	}
	return list
}

func newRandom() *rand.Rand { return rand.New(rand.NewPCG(seed, seed)) } //nolint:gosec // names to measure with

type generator struct {
	random          *rand.Rand
	suffixes, hosts []string
}

func newGenerator() generator { return generator{newRandom(), spread(suffixes), spread(hosts)} }

func (g generator) pick(list []string) string { return list[g.random.IntN(len(list))] }

// registered makes a domain as somebody registers it: of about 10 letters, seldom of more than 20.
func (g generator) registered() string {
	var b strings.Builder
	for length := g.length(9.5, 4.5, 2, 40); b.Len() < length; {
		g.syllable(&b)
		switch {
		case b.Len() < length && g.random.IntN(14) == 0:
			b.WriteByte('-')
		case b.Len() >= length && g.random.IntN(20) == 0:
			b.WriteByte('0' + byte(g.random.IntN(10)))
		}
	}
	return strings.Trim(b.String(), "-") + "." + g.pick(g.suffixes)
}

// hostsOf is how many names of a domain there are: usually one, of few domains hundreds.
func (g generator) hostsOf() int {
	return min(1+int(0.4/(g.random.Float64()+0.0008)), 400)
}

// host makes what is in front of a registered name, with its dot.
func (g generator) host() string {
	host := g.pick(g.hosts)
	switch host {
	case "":
		return ""
	case "*":
		host = g.made()
	}
	if g.random.IntN(7) == 0 {
		host = g.made() + "." + host
	}
	return host + "."
}

// made is a label as programs make them: a word with a number, or a piece of a hash.
func (g generator) made() string {
	var b strings.Builder
	if g.random.IntN(4) == 0 {
		const digits = "0123456789abcdef"
		for range 8 + g.random.IntN(17) {
			b.WriteByte(digits[g.random.IntN(len(digits))])
		}
		return b.String()
	}
	for length := g.length(6, 3, 1, 24); b.Len() < length; {
		g.syllable(&b)
	}
	if g.random.IntN(2) == 0 {
		if g.random.IntN(2) == 0 {
			b.WriteByte('-')
		}
		b.WriteByte('1' + byte(g.random.IntN(9)))
		b.WriteByte('0' + byte(g.random.IntN(10)))
	}
	return b.String()
}

func (g generator) length(mean, deviation float64, least, most int) int {
	return min(max(int(mean+deviation*g.random.NormFloat64()), least), most)
}

// syllable appends a consonant or two, a vowel, and sometimes a consonant again.
func (g generator) syllable(b *strings.Builder) {
	const vowels, consonants = "aeiouaeioaeiy", "bcdfghjklmnpqrstvwxzbcdfglmnprstmnrst"
	if g.random.IntN(9) > 0 {
		b.WriteByte(consonants[g.random.IntN(len(consonants))])
	}
	if g.random.IntN(6) == 0 {
		b.WriteByte("rlh"[g.random.IntN(3)])
	}
	b.WriteByte(vowels[g.random.IntN(len(vowels))])
	if g.random.IntN(3) == 0 {
		b.WriteByte(consonants[g.random.IntN(len(consonants))])
	}
}

// weighted is a text and how often it is to be picked.
type weighted struct {
	text   string
	weight int
}

// spread gives each text as often as its weight says.
func spread(list []weighted) (texts []string) {
	for _, entry := range list {
		texts = append(texts, slices.Repeat([]string{entry.text}, entry.weight)...)
	}
	return texts
}
