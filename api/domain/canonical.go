package domain

import "fmt"

// ParseCanonical reads what Name.String returned: also names with escaped bytes, which people do not
// write but resolvers answer with.
func ParseCanonical(s string) (Name, error) {
	if s == "." {
		return Name{s}, nil
	}
	wire := make([]byte, 1, len(s)+2)
	start := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '.':
			wire[start] = labelLength(wire, start)
			start = len(wire)
			wire = append(wire, 0)
		case s[i] != '\\':
			wire = append(wire, s[i])
		case i+3 < len(s) && isDigit(s[i+1]) && isDigit(s[i+2]) && isDigit(s[i+3]):
			value := int(s[i+1]-'0')*100 + int(s[i+2]-'0')*10 + int(s[i+3]-'0')
			if value > 255 {
				return Name{}, fmt.Errorf("%w: %q: \\%03d is no byte", ErrBadName, s, value)
			}
			wire = append(wire, byte(value))
			i += 3
		case i+1 < len(s) && !isDigit(s[i+1]):
			wire = append(wire, s[i+1])
			i++
		default:
			return Name{}, fmt.Errorf("%w: %q: the escape at byte %d is cut short", ErrBadName, s, i)
		}
	}
	wire[start] = labelLength(wire, start)
	name, err := FromWire(append(wire, 0))
	switch {
	case err != nil:
		return Name{}, err
	case name.text != s:
		return Name{}, fmt.Errorf("%w: %q is not canonical: %q is", ErrBadName, s, name.text)
	}
	return Name{s}, nil
}

// labelLength returns the length of the label that begins at start and ends the wire; one that is too
// long for FromWire stays so.
func labelLength(wire []byte, start int) byte { return byte(min(len(wire)-start-1, 255)) } //nolint:gosec // at most 255
