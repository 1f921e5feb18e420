package store

// LimitHistory makes the window small enough for a test to fall out of it.
func (s *Store) LimitHistory(events, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.maxEvents, s.history.maxBytes = events, bytes
}
