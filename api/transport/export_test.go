package transport

// Look looks at the files once.
func (s *Source) Look() { s.look() }

// SayExpiry logs what ends.
var SayExpiry = (*Source).sayExpiry
