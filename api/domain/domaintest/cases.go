// Package domaintest holds the one table of which pattern matches which name. The Go matcher, the
// compiled tables and the BPF programs are all judged by it.
package domaintest

import (
	"slices"
	"strings"
)

// Case says whether a pattern matches a name.
type Case struct {
	// Fact says what the case shows.
	Fact string
	// Pattern is the pattern as an operator writes it.
	Pattern string
	// Name is the name in wire form without length octets: its labels, which may hold any byte.
	Name []string
	// Match is the verdict.
	Match bool
}

// Cases returns the table.
func Cases() []Case {
	return slices.Concat(exact(), below(), every(), labels(), within(), belowWithin(), internationalised(), limits())
}

// name splits at the dots.
func name(s string) []string { return strings.Split(s, ".") }

func exact() []Case {
	return []Case{
		{"a name matches itself", "api.example.com", name("api.example.com"), true},
		{"letter case of the name does not count", "api.example.com", name("API.eXample.COM"), true},
		{"letter case of the pattern does not count", "API.Example.com", name("api.example.com"), true},
		{"the final dot of a pattern does not count", "api.example.com.", name("api.example.com"), true},
		{"an exact pattern does not match below", "api.example.com", name("x.api.example.com"), false},
		{"an exact pattern does not match above", "api.example.com", name("example.com"), false},
		{"an exact name's labels are whole", "example.com", name("evilexample.com"), false},
		{"a literal star is no wildcard", "api.example.com", name("*.example.com"), false},
		{"an underscore is an ordinary character", "_dmarc.example.com", name("_dmarc.example.com"), true},
		{"hyphens may stand anywhere", "-a-.--.example.com", name("-a-.--.example.com"), true},
		{"a byte that differs in the top bit alone is another", "example.com", []string{"\xe5xample", "com"}, false},
		{"a dot inside a label is none between labels", "api.example.com", []string{"api.example", "com"}, false},
		{"a top-level name alone", "localdomain", name("localdomain"), true},
		{"a name is not the root", "localdomain", nil, false},
	}
}

func below() []Case {
	return []Case{
		{"a wildcard matches one label", "*.example.com", name("a.example.com"), true},
		{"a wildcard matches two labels", "*.example.com", name("a.b.example.com"), true},
		{"the apex is not below itself", "*.example.com", name("example.com"), false},
		{"labels are whole", "*.example.com", name("evilexample.com"), false},
		{"labels of a name below are whole", "*.example.com", name("a.evilexample.com"), false},
		{"what follows the base counts", "*.example.com", name("a.example.com.evil.test"), false},
		{"a dot inside a label separates nothing", "*.example.com", []string{"a.example", "com"}, false},
		{"a dot inside the first label does not match", "*.example.com", []string{"a.b", "example", "com"}, false},
		{"a literal star inside a label matches no pattern of labels", "*.example.com", name("*.example.com"), false},
		{"bytes above ASCII match no pattern of labels", "*.example.com", []string{"caf\xe9", "example", "com"}, false},
		{"a zero byte matches no pattern of labels", "*.example.com", []string{"a\x00", "example", "com"}, false},
		{"digits are digits", "*.0.example", name("1.0.example"), true},
		{"a top-level wildcard", "*.com", name("example.com"), true},
		{"deep below", "*.example.com", name("a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.example.com"), true},
	}
}

func every() []Case {
	return []Case{
		{"a star alone matches a name", "*", name("api.example.com"), true},
		{"a star alone matches a top-level name", "*", name("localdomain"), true},
		{"a star alone matches the root", "*", nil, true},
		{"a star alone matches bytes above ASCII", "*", []string{"caf\xe9", "example"}, true},
		{"a star alone matches a dot inside a label", "*", []string{"a.b", "example"}, true},
		{"a star alone matches a literal star", "*", name("*.example"), true},
		{"a star alone matches zero bytes and spaces", "*", []string{"\x00 ", "example"}, true},
	}
}

func labels() []Case {
	return []Case{
		{"a star label stands for one label", "www.*.com", name("www.example.com"), true},
		{"a star label stands for several labels", "www.*.com", name("www.a.b.c.com"), true},
		{"a star label stands for no fewer than one", "www.*.com", name("www.com"), false},
		{"the label before a star label is the first", "www.*.com", name("a.www.example.com"), false},
		{"the label before a star label is whole", "www.*.com", name("xwww.example.com"), false},
		{"the label before a star label is not longer", "www.*.com", name("wwwx.example.com"), false},
		{"the base behind a star label is whole", "www.*.com", name("www.example.xcom"), false},
		{"the base behind a star label is the end", "www.*.com", name("www.example.com.test"), false},
		{"letter case does not count before a star label", "WWW.*.Com", name("wwW.example.cOM"), true},
		{"a star label may repeat the head", "www.*.com", name("www.www.com"), true},
		{"a star label may repeat the base", "www.*.com", name("www.com.com"), true},
		{"two labels behind a star label", "update.*.corp.example", name("update.eu.corp.example"), true},
		{"two labels behind a star label, several in its place", "update.*.corp.example", name("update.a.b.corp.example"), true},
		{"two labels behind a star label, none in its place", "update.*.corp.example", name("update.corp.example"), false},
		{"two labels behind a star label, one of them missing", "update.*.corp.example", name("update.eu.example"), false},
		{"two labels before a star label", "a.b.*.example", name("a.b.c.example"), true},
		{"two labels before a star label, one of them missing", "a.b.*.example", name("a.c.example"), false},
		{"two labels before a star label, in another order", "a.b.*.example", name("b.a.c.example"), false},
		{"a star label at the end", "www.*", name("www.example.com"), true},
		{"a star label at the end stands for one label too", "www.*", name("www.com"), true},
		{"a star label at the end stands for no fewer than one", "www.*", name("www"), false},
		{"a star label at the end, another head", "www.*", name("ww.example.com"), false},
		{"a star label at the end does not match the root", "www.*", nil, false},
		{"an odd byte in place of a star label", "www.*.com", []string{"www", "caf\xe9", "com"}, false},
		{"a dot inside a label in place of a star label", "www.*.com", []string{"www", "a.b", "com"}, false},
		{"a dot inside a label is not the one before a star label", "www.*.com", []string{"www.a", "b", "com"}, false},
		{"hyphens and underscores around a star label", "_a-.*.-b_", name("_a-.x.-b_"), true},
	}
}

func within() []Case {
	return []Case{
		{"a star inside a label stands for characters", "s3-*.amazonaws.com", name("s3-eu.amazonaws.com"), true},
		{"a star inside a label stands for none", "s3-*.amazonaws.com", name("s3-.amazonaws.com"), true},
		{"a star inside a label stands for hyphens, digits and underscores", "s3-*.amazonaws.com", name("s3-eu-west_1.amazonaws.com"), true},
		{"a star inside a label stands for characters of that label alone", "s3-*.amazonaws.com", name("s3-a.b.amazonaws.com"), false},
		{"no label may stand before one with a star inside", "s3-*.amazonaws.com", name("x.s3-a.amazonaws.com"), false},
		{"what stands before a star inside a label counts", "s3-*.amazonaws.com", name("s4-a.amazonaws.com"), false},
		{"what stands before a star inside a label is its beginning", "s3-*.amazonaws.com", name("xs3-a.amazonaws.com"), false},
		{"a label that is shorter than what stands before the star", "s3-*.amazonaws.com", name("s3.amazonaws.com"), false},
		{"the label with the star is missing", "s3-*.amazonaws.com", name("amazonaws.com"), false},
		{"the base behind a star inside a label is whole", "s3-*.amazonaws.com", name("s3-a.xamazonaws.com"), false},
		{"letter case does not count around a star inside a label", "S3-*.amazonaws.com", name("s3-A.AMAZONAWS.com"), true},
		{"a star at the beginning of a label", "*-api.example.com", name("eu-api.example.com"), true},
		{"a star at the beginning of a label stands for none", "*-api.example.com", name("-api.example.com"), true},
		{"a star at the beginning of a label does not stand for labels", "*-api.example.com", name("a.eu-api.example.com"), false},
		{"what stands behind a star at the beginning of a label is its end", "*-api.example.com", name("eu-apix.example.com"), false},
		{"a star in the middle of a label", "a*z.example.com", name("abcz.example.com"), true},
		{"a star in the middle of a label stands for none", "a*z.example.com", name("az.example.com"), true},
		{"both sides of a star need characters of their own", "aba*aba.example", name("aba.example"), false},
		{"both sides of a star do not overlap", "aba*aba.example", name("ababa.example"), false},
		{"both sides of a star may meet", "aba*aba.example", name("abaaba.example"), true},
		{"a label ends with another character than behind the star", "a*z.example.com", name("abc.example.com"), false},
		{"a star at the end of a label stands for none", "api*.example.com", name("api.example.com"), true},
		{"a star at the end of a label stands for many", "api*.example.com", name("api-internal-7.example.com"), true},
		{"a label before one with a star inside", "www.s3-*.amazonaws.com", name("www.s3-a.amazonaws.com"), true},
		{"a label before one with a star inside is missing", "www.s3-*.amazonaws.com", name("s3-a.amazonaws.com"), false},
		{"a label before one with a star inside is another", "www.s3-*.amazonaws.com", name("ftp.s3-a.amazonaws.com"), false},
		{"a label before one with a star inside is the first", "www.s3-*.amazonaws.com", name("a.www.s3-a.amazonaws.com"), false},
		{"two labels before one with a star inside", "a.b.c*.example", name("a.b.cd.example"), true},
		{"two labels before one with a star inside, one of them missing", "a.b.c*.example", name("b.cd.example"), false},
		{"a star inside the last label", "api.ex*", name("api.example"), true},
		{"a star inside the last label does not stand for labels", "api.ex*", name("api.ex.ample"), false},
		{"a star inside the only label", "local*", name("localdomain"), true},
		{"a star inside the only label allows none before", "local*", name("a.localdomain"), false},
		{"an odd byte in place of a star inside a label", "s3-*.amazonaws.com", []string{"s3-\xe9", "amazonaws", "com"}, false},
		{"a dot inside a label in place of a star inside a label", "s3-*.amazonaws.com", []string{"s3-a.b", "amazonaws", "com"}, false},
		{"a literal star in place of a star inside a label", "s3-*.amazonaws.com", name("s3-*.amazonaws.com"), false},
	}
}

func belowWithin() []Case {
	return []Case{
		{"a label below one with a star inside", "*.s3-*.amazonaws.com", name("bucket.s3-eu.amazonaws.com"), true},
		{"several labels below one with a star inside", "*.s3-*.amazonaws.com", name("my.own.bucket.s3-eu.amazonaws.com"), true},
		{"below one with a star inside that stands for none", "*.s3-*.amazonaws.com", name("bucket.s3-.amazonaws.com"), true},
		{"one with a star inside is not below itself", "*.s3-*.amazonaws.com", name("s3-eu.amazonaws.com"), false},
		{"the star inside a label stands for characters of that label alone", "*.s3-*.amazonaws.com", name("bucket.s3-a.b.amazonaws.com"), false},
		{"the label with the star inside is the one before the base", "*.s3-*.amazonaws.com", name("s3-a.bucket.amazonaws.com"), false},
		{"a label between those with the stars", "*.www.s3-*.amazonaws.com", name("a.www.s3-a.amazonaws.com"), true},
		{"a label between those with the stars is missing", "*.www.s3-*.amazonaws.com", name("a.s3-a.amazonaws.com"), false},
		{"a label between those with the stars is the first", "*.www.s3-*.amazonaws.com", name("www.s3-a.amazonaws.com"), false},
		{"a label between those with the stars is whole", "*.www.s3-*.amazonaws.com", name("awww.s3-a.amazonaws.com"), false},
		{"below one with a star inside the only label", "*.local*", name("a.localdomain"), true},
		{"an odd byte below one with a star inside", "*.s3-*.amazonaws.com", []string{"\xff", "s3-a", "amazonaws", "com"}, false},
	}
}

func internationalised() []Case {
	return []Case{
		{"a name of Unicode is its A-labels", "b\u00fccher.example", name("xn--bcher-kva.example"), true},
		{"letter case of Unicode does not count", "B\u00dcCHER.example", name("XN--bcher-kva.example"), true},
		{"a decomposed character is the composed one", "bu\u0308cher.example", name("xn--bcher-kva.example"), true},
		{"a name of Unicode is not its bytes", "b\u00fccher.example", []string{"b\xc3\xbccher", "example"}, false},
		{"an ideographic full stop is a dot", "\u4f8b\u3048\u3002\u30c6\u30b9\u30c8", name("xn--r8jz45g.xn--zckzah"), true},
		{"below a name of Unicode", "*.\u4f8b\u3048.example", name("www.xn--r8jz45g.example"), true},
		{"a star label before a name of Unicode", "www.*.\u30c6\u30b9\u30c8", name("www.a.xn--zckzah"), true},
		{"a sharp s stays one", "stra\u00dfe.example", name("xn--strae-oqa.example"), true},
		{"an A-label is ordinary characters", "xn--*.example", name("xn--bcher-kva.example"), true},
	}
}

func limits() []Case {
	long := strings.Repeat("abcdefgh", 8)[:63]
	other := long[:62] + "x"
	three := strings.Join([]string{long, long, long}, ".") // 192 bytes in wire form, without the root
	return []Case{
		{"a long label", long + ".example", name(strings.ToUpper(long) + ".example"), true},
		{"a long label that differs in its last byte", long + ".example", name(other + ".example"), false},
		{"the longest name", three + "." + long[:61], name(three + "." + long[:61]), true},
		{"the longest name that differs in its first byte", three + "." + long[:61], name("x" + three[1:] + "." + long[:61]), false},
		{"the longest name below one label", "*." + long[:61], name(three + "." + long[:61]), true},
		{"the longest name around a star label", long + ".*." + long[:61], name(three + "." + long[:61]), true},
		{"the longest name around a star label, another head", other + ".*." + long[:61], name(three + "." + long[:61]), false},
		{"the longest head", three + "." + long[:57] + ".*.a", name(three + "." + long[:57] + ".b.a"), true},
		{"the longest head, which differs in its last byte", three + "." + long[:57] + ".*.a", name(three + "." + long[:56] + "x.b.a"), false},
		{"the longest label in place of a star label", "a.*.b", name("a." + long + ".b"), true},
		{"127 labels in place of a star label and around it", "a.*.b", name("a." + strings.Repeat("x.", 125) + "b"), true},
		{"127 labels below one with a star inside", "*.x*.b", name(strings.Repeat("x.", 126) + "b"), true},
		{"a star inside a label stands for all of a long one", "a*.example", name(long + ".example"), true},
		{"a star inside a label of the longest name", long[:30] + "*" + long[40:] + "." + three[64:] + "." + long[:61], name(three + "." + long[:61]), true},
		{"both sides of a star are all of a long label", long[:30] + "*" + long[30:] + ".example", name(long + ".example"), true},
		{"both sides of a star are longer than the label", long[:30] + "*" + long[30:] + ".example", name(long[:62] + ".example"), false},
		{"below a star that stands for none, the longest name", "*." + long + "*." + three[64:191] + "." + long[:59], name("b." + long + "." + three[64:191] + "." + long[:59]), true},
	}
}

// Wire returns the case's name in wire form with its root label.
func (c Case) Wire() []byte {
	var wire []byte
	for _, label := range c.Name {
		wire = append(wire, byte(len(label)))
		wire = append(wire, label...)
	}
	return append(wire, 0)
}
