// Package adminserver serves the API that operators use. Its methods check the request, ask the store, and
// answer; what went wrong becomes a gRPC status here and nowhere else.
package adminserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/audit"
	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/store"
)

var (
	// errStopping ends streams when the server stops: the client connects anew.
	errStopping = errors.New("server is stopping")
	// errPeerLost ends streams that would not be complete any more.
	errPeerLost = errors.New("another policy server cannot be reached: what its nodes do is not known from here on")
	// errTooSlow ends a stream whose reader lets more pile up than is kept for it.
	errTooSlow = errors.New("reader is too slow: what it missed can be listed")
	// errCapacity refuses what a node's datapath could not hold.
	errCapacity = errors.New("more than a node can hold")
	// errTooLarge refuses a domain set that is larger than any may be.
	errTooLarge = errors.New("more domains than a set may have")
	// errNotInline refuses an update that would empty a set whose domains its reader cannot have seen.
	errNotInline = errors.New("its domains are too many for a DomainSet message, and the update has none: change them with AddDomains, RemoveDomains or ReplaceDomains, or leave them out of update_mask")
)

const (
	// errorDomain is the domain of each ErrorInfo: the reasons below are unique within it.
	errorDomain = "nameward"
	// maxViolations bounds the details: gRPC sends them in a header.
	maxViolations = 100
)

// verdict says what the client hears of an error.
type verdict struct {
	err    error
	code   codes.Code
	reason string
}

func verdicts() []verdict {
	return []verdict{
		{store.ErrNotFound, codes.NotFound, "NOT_FOUND"},
		{store.ErrExists, codes.AlreadyExists, "ALREADY_EXISTS"},
		{store.ErrStale, codes.Aborted, "STALE_ETAG"},
		{audit.ErrFull, codes.ResourceExhausted, "AUDIT_LOG_FULL"},
		{audit.ErrBroken, codes.Unavailable, "AUDIT_LOG_FAILED"},
		{store.ErrConnected, codes.FailedPrecondition, "CONNECTED"},
		{errStopping, codes.Unavailable, "STOPPING"},
		{errPeerLost, codes.Unavailable, "PEER_UNREACHABLE"},
		{storage.ErrUnavailable, codes.Unavailable, "STORAGE_UNAVAILABLE"},
		// The code that says so of any call: it may have been done.
		{storage.ErrUnknownOutcome, codes.DeadlineExceeded, "OUTCOME_UNKNOWN"},
		{errTooSlow, codes.ResourceExhausted, "TOO_SLOW"},
		{errCapacity, codes.ResourceExhausted, "CAPACITY_EXCEEDED"},
		{errTooLarge, codes.ResourceExhausted, "TOO_MANY_DOMAINS"},
		{errNotInline, codes.FailedPrecondition, "DOMAINS_NOT_INLINE"},
		{context.Canceled, codes.Canceled, "CANCELED"},
		{context.DeadlineExceeded, codes.DeadlineExceeded, "DEADLINE_EXCEEDED"},
	}
}

// toStatus turns an error of any layer into a gRPC status with details, and logs what the client must not
// see. Handlers return toStatus(log, err) and build no status themselves. Every *ruleset.FieldError in the
// tree of err becomes a violation of its own.
func toStatus(log *slog.Logger, err error) error {
	if err == nil {
		return nil
	}
	if faults := ruleset.FieldErrors(err); len(faults) > 0 {
		return invalid(faults)
	}
	var unmet *store.PreconditionError
	if errors.As(err, &unmet) {
		return failedPrecondition(unmet)
	}
	for _, v := range verdicts() {
		if !errors.Is(err, v.err) {
			continue
		}
		info := &errdetails.ErrorInfo{Reason: v.reason, Domain: errorDomain}
		message := err.Error()
		var resource *store.ResourceError
		if errors.As(err, &resource) {
			info.Metadata = map[string]string{"resource": resource.Name}
			message = resource.Error()
		}
		return withDetails(v.code, message, info)
	}
	// An error of gRPC itself, as a stream's Recv and Send return them.
	if s, ok := status.FromError(err); ok {
		return s.Err()
	}
	log.Error("request failed", "err", err)
	return withDetails(codes.Internal, "internal error", &errdetails.ErrorInfo{Reason: "INTERNAL", Domain: errorDomain})
}

// invalid answers with every fault at once.
func invalid(faults []*ruleset.FieldError) error {
	details := &errdetails.BadRequest{}
	for _, fault := range faults[:min(len(faults), maxViolations)] {
		details.FieldViolations = append(details.FieldViolations, &errdetails.BadRequest_FieldViolation{
			Field: fault.Field, Description: fault.Description(),
		})
	}
	message := faults[0].Field + ": " + faults[0].Description()
	if more := len(faults) - 1; more > 0 {
		message += fmt.Sprintf(" (and %d more)", more)
	}
	info := &errdetails.ErrorInfo{
		Reason: "INVALID_FIELD", Domain: errorDomain, Metadata: map[string]string{"violations": strconv.Itoa(len(faults))},
	}
	return withDetails(codes.InvalidArgument, message, details, info)
}

// failedPrecondition answers with every object that would have to be otherwise. Of domain sets that are
// missing it says the fields that name them too.
func failedPrecondition(unmet *store.PreconditionError) error {
	failure, fields := &errdetails.PreconditionFailure{}, &errdetails.BadRequest{}
	reason := "IN_USE"
	for _, v := range unmet.Violations[:min(len(unmet.Violations), maxViolations)] {
		violation := &errdetails.PreconditionFailure_Violation{Type: "IN_USE", Subject: v.Subject, Description: v.Reason()}
		if v.Missing {
			reason, violation.Type = "MISSING", "MISSING"
			fields.FieldViolations = append(fields.FieldViolations, &errdetails.BadRequest_FieldViolation{
				Field: v.Field, Description: fmt.Sprintf("%q: does not exist", v.Subject),
			})
		}
		failure.Violations = append(failure.Violations, violation)
	}
	info := &errdetails.ErrorInfo{Reason: reason, Domain: errorDomain, Metadata: map[string]string{
		"resource": unmet.Name, "violations": strconv.Itoa(len(unmet.Violations)),
	}}
	if len(fields.GetFieldViolations()) > 0 {
		return withDetails(codes.FailedPrecondition, unmet.Error(), failure, fields, info)
	}
	return withDetails(codes.FailedPrecondition, unmet.Error(), failure, info)
}

func withDetails(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	s := status.New(code, message)
	detailed, err := s.WithDetails(details...)
	if err != nil {
		return s.Err() // a detail that cannot be encoded; the code matters more
	}
	return detailed.Err()
}

// within returns the field errors of err, or the fields that a *store.PreconditionError names in the message,
// as those of a message's field.
func within(field string, err error) error {
	var unmet *store.PreconditionError
	if errors.As(err, &unmet) {
		moved := &store.PreconditionError{Name: unmet.Name, Violations: slices.Clone(unmet.Violations)}
		for i := range moved.Violations {
			moved.Violations[i].Field = field + "." + moved.Violations[i].Field
		}
		return moved
	}
	var all []error
	for _, fault := range ruleset.FieldErrors(err) {
		all = append(all, &ruleset.FieldError{Field: field + "." + fault.Field, Value: fault.Value, Reason: fault.Reason})
	}
	if len(all) == 0 {
		return err
	}
	return errors.Join(all...)
}
