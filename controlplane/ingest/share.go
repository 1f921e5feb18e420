package ingest

import "time"

const (
	// maxLife is for how long a mapping is believed to live without being told again: one that a node said to live for
	// ever would never give way to others.
	maxLife = 31 * 24 * time.Hour
	// minShare is what every node may have, however small the limit is.
	minShare = 4096
	// evictPart is which part of its own a node gives up that has all that it may.
	evictPart = 16
)

// shareOf returns how much of a limit one node may have: a node that says what it likes pushes out nothing but its own.
func shareOf(limit int) int { return max(limit/4, minShare) }
