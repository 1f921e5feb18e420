// Package domaintest holds the one table of which pattern matches which name. The Go matcher, the
// compiled tables and the BPF programs are all judged by it.
package domaintest

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
	return []Case{
		{"a name matches itself", "api.example.com", []string{"api", "example", "com"}, true},
		{"letter case of the name does not count", "api.example.com", []string{"API", "eXample", "COM"}, true},
		{"letter case of the pattern does not count", "API.Example.com", []string{"api", "example", "com"}, true},
		{"the final dot of a pattern does not count", "api.example.com.", []string{"api", "example", "com"}, true},
		{"an exact pattern does not match below", "api.example.com", []string{"x", "api", "example", "com"}, false},
		{"an exact pattern does not match above", "api.example.com", []string{"example", "com"}, false},
		{"a wildcard matches one label", "*.example.com", []string{"a", "example", "com"}, true},
		{"a wildcard matches two labels", "*.example.com", []string{"a", "b", "example", "com"}, true},
		{"the apex is not below itself", "*.example.com", []string{"example", "com"}, false},
		{"labels are whole", "*.example.com", []string{"evilexample", "com"}, false},
		{"an exact name's labels are whole", "example.com", []string{"evilexample", "com"}, false},
		{"a dot inside a label separates nothing", "*.example.com", []string{"a.example", "com"}, false},
		{"a dot inside the first label does not match", "*.example.com", []string{"a.b", "example", "com"}, false},
		{"a literal star is no wildcard", "api.example.com", []string{"*", "example", "com"}, false},
		{"a literal star inside a label matches no pattern of labels", "*.example.com", []string{"*", "example", "com"}, false},
		{"an underscore is an ordinary character", "_dmarc.example.com", []string{"_dmarc", "example", "com"}, true},
		{"hyphens may stand anywhere", "-a-.example.com", []string{"-a-", "example", "com"}, true},
		{"bytes above ASCII match no pattern of labels", "*.example.com", []string{"caf\xe9", "example", "com"}, false},
		{"a byte that differs in the top bit alone is another", "example.com", []string{"\xe5xample", "com"}, false},
		{"digits are digits", "*.0.example", []string{"1", "0", "example"}, true},
		{"a top-level wildcard", "*.com", []string{"example", "com"}, true},
		{"a top-level name alone", "localdomain", []string{"localdomain"}, true},
		{
			"a long label", "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0.example",
			[]string{"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789abcdefghijklmnopqrstuvwxyz0", "example"},
			true,
		},
		{
			"a long label that differs in its last byte", "abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz0.example",
			[]string{"abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrstuvwxyz1", "example"},
			false,
		},
		{
			"deep below", "*.example.com",
			[]string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m", "n", "o", "p", "example", "com"},
			true,
		},
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
