package localserver

import (
	"errors"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/api/ruleset"
)

func fieldError(field, value, reason string) error {
	return &ruleset.FieldError{Field: field, Value: value, Reason: reason}
}

// invalid answers a request whose fields are at fault, with every fault at once.
func invalid(err error) error {
	details := &errdetails.BadRequest{}
	var joined interface{ Unwrap() []error }
	faults := []error{err}
	if errors.As(err, &joined) {
		faults = flatten(joined.Unwrap())
	}
	for _, fault := range faults {
		violation := &errdetails.BadRequest_FieldViolation{Description: fault.Error()}
		if field, ok := errors.AsType[*ruleset.FieldError](fault); ok {
			violation.Field, violation.Description = field.Field, field.Reason
		}
		details.FieldViolations = append(details.FieldViolations, violation)
	}
	s := status.New(codes.InvalidArgument, err.Error())
	if detailed, err := s.WithDetails(details); err == nil {
		s = detailed
	}
	return s.Err()
}

func flatten(errs []error) []error {
	var flat []error
	for _, err := range errs {
		var joined interface{ Unwrap() []error }
		if errors.As(err, &joined) {
			flat = append(flat, flatten(joined.Unwrap())...)
			continue
		}
		flat = append(flat, err)
	}
	return flat
}
