package observe

// endedMappings is how many mappings are remembered after their end, to say why what was open is closed.
const endedMappings = 8192

// endedLog holds the mappings that ended last.
type endedLog struct {
	mappings []Mapping
	next     int // where the next one goes, once the log is full
}

func (l *endedLog) add(m Mapping) {
	if len(l.mappings) < endedMappings {
		l.mappings = append(l.mappings, m)
		return
	}
	l.mappings[l.next] = m
	l.next = (l.next + 1) % endedMappings
}

// Find returns the mappings that keep accepts, in no order: those that are held, and those that ended and
// are still remembered. A pair of name and address may come more than once; ExpiresAt tells.
func (t *Table) Find(keep func(*Mapping) bool) []Mapping {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []Mapping
	var held Mapping
	for _, e := range t.expiry {
		if held = t.mapping(e); keep(&held) {
			found = append(found, held)
		}
	}
	for i := range t.ended.mappings {
		if m := &t.ended.mappings[i]; keep(m) {
			found = append(found, *m)
		}
	}
	return found
}
