package lower

// CommonFrom has match sets of so many names be common ones.
func (s *State) CommonFrom(names int) { s.groups.many = names }
