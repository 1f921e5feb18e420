package localserver

import (
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/token"
)

// The policy server has the same domain, reasons and bound: a program need not know whom it asked.
const (
	errorDomain   = "nameward"
	invalidField  = "INVALID_FIELD"
	noRuleSet     = "NO_RULE_SET"
	maxViolations = 100
)

func fieldError(field, value, reason string) error {
	return &ruleset.FieldError{Field: field, Value: value, Reason: reason}
}

// parsePage returns where the page of a request begins. An error joins a *ruleset.FieldError for every fault.
func parsePage(request interface {
	token.List
	GetPageSize() int32
},
) (after string, err error) {
	if size := request.GetPageSize(); size < 0 {
		err = fieldError("page_size", strconv.Itoa(int(size)), "is negative")
	}
	after, tokenErr := token.ParsePage(request)
	if tokenErr != nil {
		tokenErr = badPageToken(request)
	}
	return after, errors.Join(err, tokenErr)
}

func badPageToken(request token.List) error {
	return fieldError("page_token", request.GetPageToken(), "is not the next_page_token of a page of this list: all but page_size must be as it was for that page")
}

// invalid answers a request whose fields are at fault, with every fault at once.
func invalid(err error) error {
	faults := ruleset.FieldErrors(err)
	if len(faults) == 0 {
		return err
	}
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
		Reason: invalidField, Domain: errorDomain, Metadata: map[string]string{"violations": strconv.Itoa(len(faults))},
	}
	return withDetails(codes.InvalidArgument, message, details, info)
}

func withDetails(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	s := status.New(code, message)
	if detailed, err := s.WithDetails(details...); err == nil {
		s = detailed // else one cannot be encoded; the code matters more
	}
	return s.Err()
}
