package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// listAudit reads audit events, the latest first, no more than the limit; 0 for all.
func (p *program) listAudit(ctx context.Context, filter *namewardv1.AuditEventFilter, limit int) ([]*namewardv1.AuditEvent, error) {
	connection, err := p.dialServer()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	client := namewardv1.NewAuditServiceClient(connection)
	var events []*namewardv1.AuditEvent
	damaged := int64(0)
	for token := ""; ; {
		page, err := client.ListAuditEvents(ctx, &namewardv1.ListAuditEventsRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		if err != nil {
			return nil, err
		}
		events = append(events, page.GetAuditEvents()...)
		damaged = max(damaged, page.GetDamagedLines())
		token = page.GetNextPageToken()
		if full := limit > 0 && len(events) >= limit; full || token == "" {
			if full && (len(events) > limit || token != "") {
				events = events[:limit]
				p.complain(fmt.Sprintf("There are older events: --limit shows more than %d.", limit))
			}
			break
		}
	}
	if damaged > 0 {
		p.complain(fmt.Sprintf("The audit log has %d lines that cannot be read.", damaged))
	}
	return events, nil
}

func (p *program) auditTable(events []*namewardv1.AuditEvent) *table {
	wide := p.options.output == formatWide
	t := &table{header: []string{"TIME", "OUTCOME", "ACTION", "RESOURCE", "REVISION", "DOMAINS", "WHO"}}
	if wide {
		t.header = append(t.header, "ROLE", "ADDRESS", "METHOD", "REASON")
	}
	for _, event := range events {
		caller := event.GetCaller()
		row := []cell{
			plain(event.GetCreateTime().AsTime().UTC().Format(time.RFC3339)), outcomeCell(event), plain(actionText(event)),
			plain(orNone(event.GetResource())), plain(revisionText(event.GetRevision())), plain(domainsChangeText(event.GetDomains())),
			plain(orNone(caller.GetIdentity())),
		}
		if wide {
			row = append(row, plain(orNone(caller.GetRole())), plain(orNone(caller.GetAddress())), plain(orNone(event.GetMethod())), plain(orNone(event.GetReason())))
		}
		t.add(row...)
	}
	return t
}

// outcomeCell says what came of an event; of a change that is under way, or that a server died on, that it is not known.
func outcomeCell(event *namewardv1.AuditEvent) cell {
	switch event.GetOutcome() {
	case namewardv1.AuditEvent_COMMITTED:
		return cell{"committed", styleGood}
	case namewardv1.AuditEvent_NOT_COMMITTED:
		return cell{"not committed", styleWarning}
	case namewardv1.AuditEvent_DENIED:
		return cell{"denied", styleBad}
	}
	return cell{"unknown", styleWarning}
}

// actionText is what was to be done; of denied calls the method, and how many of them there were.
func actionText(event *namewardv1.AuditEvent) string {
	if event.GetOutcome() == namewardv1.AuditEvent_DENIED {
		method := event.GetMethod()[strings.LastIndexByte(event.GetMethod(), '/')+1:]
		if event.GetCount() > 1 {
			method += " ×" + strconv.FormatInt(event.GetCount(), 10)
		}
		return orNone(method)
	}
	return strings.ToLower(event.GetAction().String())
}

func domainsChangeText(change *namewardv1.DomainsChange) string {
	if change == nil {
		return none
	}
	return fmt.Sprintf("+%d -%d", change.GetAddedCount(), change.GetRemovedCount())
}

// audit returns the filter for a request, or nil when it selects everything.
func (f *filter) audit(now time.Time) (*namewardv1.AuditEventFilter, error) {
	if !f.set() {
		return nil, nil
	}
	message := &namewardv1.AuditEventFilter{Resource: f.resource, Identity: f.identity}
	if f.outcome != "" {
		number, known := namewardv1.AuditEvent_Outcome_value[strings.ToUpper(strings.ReplaceAll(f.outcome, "-", "_"))]
		if !known || number == 0 {
			return nil, usagef("--outcome: %q is none of committed, not-committed and denied", f.outcome)
		}
		message.Outcome = namewardv1.AuditEvent_Outcome(number)
	}
	if f.since != "" {
		since, err := parseSince(f.since, now)
		if err != nil {
			return nil, err
		}
		message.Since = timestamppb.New(since)
	}
	return message, nil
}

// parseSince reads how long ago, `24h`, or a time, `2026-11-02T10:00:00Z`.
func parseSince(text string, now time.Time) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, usagef("--since: %q is neither a duration, such as 24h, nor a time, such as 2026-11-02T10:00:00Z", text)
	}
	return at, nil
}
