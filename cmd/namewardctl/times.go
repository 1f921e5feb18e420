package main

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// none stands where there is nothing to show.
const none = "-"

// ago is the time since an event, "3m10s".
func (p *program) ago(event *timestamppb.Timestamp) string {
	if event == nil {
		return none
	}
	return humanDuration(p.now().Sub(event.AsTime()))
}

// until is the time to an event, "42s".
func (p *program) until(event *timestamppb.Timestamp) string {
	if event == nil {
		return none
	}
	return humanDuration(event.AsTime().Sub(p.now()))
}

// moment is the point in time and how long ago that was.
func (p *program) moment(event *timestamppb.Timestamp) string {
	if event == nil {
		return none
	}
	return event.AsTime().UTC().Format(time.RFC3339) + " (" + p.ago(event) + " ago)"
}

// left is the time until something ends, or that it has.
func (p *program) left(end *timestamppb.Timestamp) string {
	if end != nil && !p.now().Before(end.AsTime()) {
		return "expired"
	}
	return p.until(end)
}

// endMoment is when something ends and how long that is from now.
func (p *program) endMoment(end *timestamppb.Timestamp) string {
	if end == nil {
		return none
	}
	text := "until " + end.AsTime().UTC().Format(time.RFC3339)
	if left := p.left(end); left != "expired" {
		return text + " (in " + left + ")"
	}
	return text + ": expired"
}

// humanDuration shows the two largest units. What lies behind counts as no time at all.
func humanDuration(d time.Duration) string {
	seconds := int64(max(d, 0).Round(time.Second) / time.Second)
	minutes, hours, days := seconds/60, seconds/3600, seconds/86400
	switch {
	case minutes == 0:
		return fmt.Sprintf("%ds", seconds)
	case hours == 0:
		return fmt.Sprintf("%dm%ds", minutes, seconds%60)
	case days == 0:
		return fmt.Sprintf("%dh%dm", hours, minutes%60)
	}
	return fmt.Sprintf("%dd%dh", days, hours%24)
}
