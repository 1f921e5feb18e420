package syncserver

import (
	"testing"
	"time"
)

func TestPaceLetsABurstPassAndThenHoldsTheRate(t *testing.T) {
	var p pace
	now := time.Now()
	if wait := p.spend(now, paceBurst); wait != 0 {
		t.Errorf("a burst waits %v", wait)
	}
	if wait := p.spend(now, paceSecond); wait != time.Second {
		t.Errorf("a second's worth more waits %v", wait)
	}
	now = now.Add(2 * time.Second)
	if wait := p.spend(now, paceSecond); wait != 0 {
		t.Errorf("what was waited for is held against the node: %v", wait)
	}
}
