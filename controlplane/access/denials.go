package access

import (
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/nameward/nameward/api/identity"
)

// errorDomain is the domain of each ErrorInfo.
const errorDomain = "nameward"

const (
	// tellInterval is how often one caller's denied calls of one method are told, and tellAtOnce how many of all callers
	// in that time. An attacker shall neither fill the log nor push out of it what others did.
	tellInterval = time.Minute
	tellAtOnce   = 60
	// forgetInterval is how long a number waits for another call of its kind, with which it is told.
	forgetInterval = time.Hour
	maxKinds       = 4096
)

// What is no class of methods.
const (
	unlistedGroup = "unlisted"
	unknownGroup  = "unknown"
)

// denials tells of calls that were denied.
type denials struct {
	auditor Auditor
	metrics *metrics
	log     *slog.Logger
	now     func() time.Time

	mu sync.Mutex // guards all below
	// began is when the interval did, told how many were told in it.
	began time.Time
	told  int
	// since counts the denied calls since those of their kind were last told.
	since map[kind]*tally
}

// kind is what denied calls have in common. Methods that there are not are one, whatever their callers call them.
type kind struct {
	identity, method string
}

type tally struct {
	count int
	told  time.Time
}

func newDenials(auditor Auditor, m *metrics, log *slog.Logger) *denials {
	return &denials{auditor: auditor, metrics: m, log: log, now: time.Now, since: map[kind]*tally{}}
}

// denied is a call that needs another role.
func (d *denials) denied(caller Caller, method string, r rule) error {
	needs := needed(r.needs)
	reason := fmt.Sprintf("%s has %s, and %s needs %s", caller, roleText(caller.Role), method, needs)
	d.tell(caller, method, reason, string(r.class))
	return denial(reason, "ROLE_REQUIRED", map[string]string{
		"identity": caller.String(), "role": string(caller.Role), "method": method, "required_role": string(r.needs),
	})
}

// unlisted is a call of a method that the table lacks. A method that nobody serves is one too: of it there is nothing
// to say but that.
func (d *denials) unlisted(caller Caller, method string) error {
	reason := fmt.Sprintf("%s: no role may call this method", short(method))
	d.tell(caller, short(method), reason, unlistedGroup)
	return refusal(codes.Unimplemented, reason, "UNKNOWN_METHOD", map[string]string{"identity": caller.String(), "method": short(method)})
}

// unknown is a call by somebody who is nobody.
func (d *denials) unknown(caller Caller, method string, err error) error {
	d.tell(caller, short(method), err.Error(), unknownGroup)
	return refusal(codes.Unauthenticated, err.Error(), "UNKNOWN_CALLER", map[string]string{"method": short(method)})
}

// tell counts a denied call, and tells of it if that is its turn.
func (d *denials) tell(caller Caller, method, reason, group string) {
	d.metrics.denied.WithLabelValues(group, roleLabel(caller)).Inc()
	k := kind{caller.String(), method}
	if group == unlistedGroup || group == unknownGroup {
		k.method = group
	}
	count := d.due(k)
	if count == 0 {
		d.metrics.untold.Inc()
		return
	}
	d.log.Warn("call denied", "identity", caller.String(), "role", string(caller.Role), "address", caller.Address, "method", method, "reason", reason, "count", count)
	d.auditor.Denied(caller, method, reason, count)
}

// due counts a call, and returns of how many of its kind is to be told now; 0 for none.
func (d *denials) due(k kind) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	if now.Sub(d.began) >= tellInterval {
		d.began, d.told = now, 0
		for k, t := range d.since {
			if age := now.Sub(t.told); age >= forgetInterval || age >= tellInterval && t.count == 0 {
				delete(d.since, k)
			}
		}
	}
	t := d.since[k]
	if t == nil {
		if len(d.since) >= maxKinds {
			return 0
		}
		t = &tally{}
		d.since[k] = t
	}
	t.count++
	if now.Sub(t.told) < tellInterval || d.told >= tellAtOnce {
		return 0
	}
	count := t.count
	t.count, t.told = 0, now
	d.told++
	return count
}

func denial(reason, code string, metadata map[string]string) error {
	return refusal(codes.PermissionDenied, reason, code, metadata)
}

func refusal(code codes.Code, message, reason string, metadata map[string]string, more ...protoadapt.MessageV1) error {
	s := status.New(code, message)
	info := &errdetails.ErrorInfo{Reason: reason, Domain: errorDomain, Metadata: metadata}
	detailed, err := s.WithDetails(append([]protoadapt.MessageV1{info}, more...)...)
	if err != nil {
		return s.Err() // a detail that cannot be encoded; the code matters more
	}
	return detailed.Err()
}

func needed(role identity.Role) string {
	switch role {
	case identity.Viewer, identity.Editor:
		return fmt.Sprintf("the role %s or one above it", role)
	default:
		return fmt.Sprintf("the role %s", role)
	}
}

func roleText(role identity.Role) string {
	if role == "" {
		return "no role"
	}
	return "the role " + string(role)
}

func roleLabel(caller Caller) string {
	switch {
	case caller.Anonymous:
		return Anonymous
	case caller.Role == "":
		return "none"
	}
	return string(caller.Role)
}

// short bounds a method's name, which is whatever the caller made up.
func short(method string) string {
	const most = 128
	if len(method) > most {
		method = method[:most] + "…"
	}
	return strings.ToValidUTF8(method, "\uFFFD")
}
