package bpf

// Owned returns which page of its address a cell of mappings is, and whether it is any.
func (m *DatapathMapping) Owned() (page uint32, owned bool) {
	owner := DatapathMappingLimit(m.Owner)
	page = uint32(owner>>DatapathMappingLimitMAPPING_PAGE_SHIFT) % uint32(DatapathMappingLimitMAPPING_PAGES)
	return page, owner&DatapathMappingLimitMAPPING_STATE == DatapathMappingLimitMAPPING_OWNED
}

// MappingCells returns how many cells hold so many addresses: 15 for 8, in whole groups. Where as many live as there
// is room for, one of 70,000 that are learned pushes another out before its time; where there are fewer, none.
func MappingCells(addresses uint32) uint32 {
	const group = uint64(DatapathMappingLimitMAPPING_GROUP)
	groups := (uint64(addresses)*15/8 + group - 1) / group
	return uint32(min(max(groups, 2), 1<<32/group-1) * group) //nolint:gosec // fits
}
