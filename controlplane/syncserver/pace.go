package syncserver

import "time"

// What one node may say, in mappings and flow events. An agent says far less; one that says more, by a fault or on
// purpose, is read no faster, and its connection holds it back: nothing is lost, and nobody else notices.
const (
	paceSecond = 20_000
	paceBurst  = 200_000 // all that a node holds, when it connects
	// messageCost is what a message costs beside what is in it.
	messageCost = 10
)

// pace says when a node may be read on. The zero pace has all of its burst.
type pace struct {
	owed float64
	at   time.Time
}

// spend takes note of what was said and returns how long to wait before more is read.
func (p *pace) spend(now time.Time, cost int) time.Duration {
	p.owed = max(0, p.owed-now.Sub(p.at).Seconds()*paceSecond) + float64(cost)
	p.at = now
	if p.owed <= paceBurst {
		return 0
	}
	return time.Duration((p.owed - paceBurst) / paceSecond * float64(time.Second))
}
