package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/access"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

const (
	// collection precedes the id in the name of an event.
	collection = "auditEvents/"
	// maxState is how large a resource is shown whole, and shortList how much of each list of a larger one.
	maxState  = 128 << 10
	shortList = 20
	// maxDomains bounds each of the lists of patterns that come and go.
	maxDomains = 100
	// maxReason bounds the reason for an outcome, so that its line fits in what is reserved for it, however it is escaped.
	maxReason = 128
)

// beginning returns the event of a change that is about to be committed.
func beginning(ctx context.Context, name string, change store.Change, now time.Time) *namewardv1.AuditEvent {
	event := &namewardv1.AuditEvent{
		Name: name, CreateTime: timestamppb.New(now), Caller: callerOf(ctx), Resource: change.Name,
		Before: resource(change.Before), After: resource(change.After), BeforeRevision: change.Before.Revision(),
	}
	event.Method, _ = grpc.Method(ctx)
	switch {
	case change.After.IsZero():
		event.Action = namewardv1.AuditEvent_DELETE
	case change.Before.IsZero():
		event.Action = namewardv1.AuditEvent_CREATE
	default:
		event.Action = namewardv1.AuditEvent_UPDATE
	}
	if !change.After.IsZero() {
		event.ContentDigest = change.Content[:]
	}
	removed, added := ruleset.Difference(patterns(change.Before), patterns(change.After))
	if len(removed)+len(added) > 0 {
		event.Domains = &namewardv1.DomainsChange{
			AddedCount: int64(len(added)), RemovedCount: int64(len(removed)),
			Added: policy.Texts(added[:min(len(added), maxDomains)]), Removed: policy.Texts(removed[:min(len(removed), maxDomains)]),
		}
	}
	return event
}

// ending returns what the last line of an event says.
func ending(name string, revision uint64, err error, now time.Time) *namewardv1.AuditEvent {
	event := &namewardv1.AuditEvent{Name: name, EndTime: timestamppb.New(now), Outcome: namewardv1.AuditEvent_COMMITTED, Revision: revision}
	if err == nil {
		return event
	}
	event.Outcome, event.Revision, event.Reason = namewardv1.AuditEvent_OUTCOME_UNSPECIFIED, 0, bounded(err.Error())
	if store.Unmade(err) {
		event.Outcome = namewardv1.AuditEvent_NOT_COMMITTED
	}
	return event
}

// denial returns the event of calls that were denied.
func denial(name string, caller access.Caller, method, reason string, count int, now time.Time) *namewardv1.AuditEvent {
	return &namewardv1.AuditEvent{
		Name: name, CreateTime: timestamppb.New(now), Caller: message(caller), Method: method,
		Outcome: namewardv1.AuditEvent_DENIED, Reason: bounded(reason), Count: int64(count),
	}
}

func callerOf(ctx context.Context) *namewardv1.AuditEvent_Caller {
	caller, ok := access.FromContext(ctx)
	if !ok {
		return nil
	}
	return message(caller)
}

func message(caller access.Caller) *namewardv1.AuditEvent_Caller {
	return &namewardv1.AuditEvent_Caller{Identity: caller.String(), Role: string(caller.Role), Address: caller.Address}
}

// patterns returns the distinct domain patterns of a resource, sorted.
func patterns(state store.State) []domain.Pattern {
	switch {
	case state.DomainSet != nil:
		return state.DomainSet.Domains
	case state.Policy != nil:
		var all []domain.Pattern
		for _, rule := range state.Policy.Rules.Rules {
			all = append(all, rule.Domains...)
		}
		slices.SortFunc(all, func(a, b domain.Pattern) int { return strings.Compare(a.String(), b.String()) })
		return slices.Compact(all)
	}
	return nil
}

func resource(state store.State) *namewardv1.AuditedResource {
	out := &namewardv1.AuditedResource{}
	switch {
	case state.Policy != nil:
		p := state.Policy.Message
		if proto.Size(p) > maxState {
			p = proto.CloneOf(p)
			out.LeftOut = shorten(p.ProtoReflect())
		}
		out.Resource = &namewardv1.AuditedResource_Policy{Policy: p}
	case state.DomainSet != nil:
		out.Resource = &namewardv1.AuditedResource_DomainSet{DomainSet: state.DomainSet.Header()}
	case state.Node != nil:
		n := state.Node.Message()
		if proto.Size(n) > maxState {
			n = proto.CloneOf(n)
			out.LeftOut = shorten(n.ProtoReflect())
		}
		out.Resource = &namewardv1.AuditedResource_Node{Node: n}
	default:
		return nil
	}
	return out
}

// shorten cuts each list of a message and of what is in it, and returns how many entries are gone.
func shorten(m protoreflect.Message) (gone int64) {
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList():
			list := value.List()
			if list.Len() > shortList {
				gone += int64(list.Len() - shortList)
				list.Truncate(shortList)
			}
			for i := range list.Len() {
				if field.Message() != nil {
					gone += shorten(list.Get(i).Message())
				}
			}
		case field.Message() != nil && !field.IsMap():
			gone += shorten(value.Message())
		}
		return true
	})
	return gone
}

func bounded(text string) string {
	if len(text) > maxReason {
		text = text[:maxReason] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

// encode returns the line of an event. Fields come in the order of their numbers, so the name is first.
func encode(event *namewardv1.AuditEvent) ([]byte, error) {
	// Every change has such a line: as text it is about twice as long, and nothing is to grow on the way there.
	text, err := protojson.MarshalOptions{}.MarshalAppend(make([]byte, 0, 2*proto.Size(event)+64), event)
	if err != nil {
		return nil, fmt.Errorf("encode audit event: %w", err)
	}
	line := bytes.NewBuffer(make([]byte, 0, len(text)+1))
	// protojson puts blanks where it likes, so that nobody counts on them.
	if err := json.Compact(line, text); err != nil {
		return nil, fmt.Errorf("encode audit event: %w", err)
	}
	line.WriteByte('\n')
	return line.Bytes(), nil
}

// encodeEnd returns the last line of an event: what encode makes of it, at a fraction of the cost, since every change
// has one.
func encodeEnd(event *namewardv1.AuditEvent) ([]byte, error) {
	line := make([]byte, 0, 256)
	line = append(append(line, `{"name":"`...), event.GetName()...)
	line = append(line, '"')
	if event.GetOutcome() != namewardv1.AuditEvent_OUTCOME_UNSPECIFIED {
		line = append(append(append(line, `,"outcome":"`...), event.GetOutcome().String()...), '"')
	}
	if event.GetRevision() != 0 {
		line = append(strconv.AppendUint(append(line, `,"revision":"`...), event.GetRevision(), 10), '"')
	}
	line = append(event.GetEndTime().AsTime().AppendFormat(append(line, `,"endTime":"`...), time.RFC3339Nano), '"')
	if event.GetReason() != "" {
		reason, err := json.Marshal(event.GetReason())
		if err != nil {
			return nil, fmt.Errorf("encode audit event: %w", err)
		}
		line = append(append(line, `,"reason":`...), reason...)
	}
	return append(line, "}\n"...), nil
}

var errDamaged = errors.New("line is no audit event")

func decode(line []byte, into *namewardv1.AuditEvent) error {
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(line, into); err != nil || !strings.HasPrefix(into.GetName(), collection) {
		return errDamaged
	}
	return nil
}
