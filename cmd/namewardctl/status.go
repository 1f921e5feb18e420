package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/nameward/nameward/api/transport"
)

// describeError puts an error in an operator's words. It is the only place that knows gRPC codes,
// beside isNotFound, isInvalid, isUnmet and isStale. Each violated field is on a line of its own, "field: description".
func describeError(err error, to options) string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var texts []string
		for _, part := range joined.Unwrap() {
			texts = append(texts, describeError(part, to))
		}
		return strings.Join(texts, "\n")
	}
	if errors.Is(err, context.Canceled) || status.Code(err) == codes.Canceled {
		return "interrupted"
	}
	var answer interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &answer) {
		return err.Error()
	}
	s := answer.GRPCStatus()
	text := callText(s, to)
	found := violations(err)
	if len(found) > 0 {
		// The message repeats the first of them.
		text = "the request has faults:"
	}
	for _, user := range usersIn(s) {
		if len(found) == 0 {
			text = "is in use:"
		}
		found = append(found, &errdetails.BadRequest_FieldViolation{Field: user.GetSubject(), Description: user.GetDescription()})
	}
	// What wraps the answer says which of several things it was about.
	if wrapping, wrapped := strings.CutSuffix(err.Error(), s.Err().Error()); wrapped {
		text = wrapping + withoutSubject(text, wrapping)
	}
	for _, violation := range found {
		text += "\n  " + violation.GetField() + ": " + violation.GetDescription()
	}
	return text
}

// withoutSubject drops the resource name that a message begins with when what stands before it ends so.
func withoutSubject(text, before string) string {
	words := strings.Fields(before)
	if len(words) == 0 {
		return text
	}
	return strings.TrimPrefix(text, words[len(words)-1]+" ")
}

func callText(s *status.Status, to options) string {
	peer := "the policy server at " + to.server
	if to.agent != "" {
		peer = "the agent at " + to.agent
	}
	switch s.Code() {
	case codes.Unavailable:
		return peer + " cannot be reached: " + transport.Words(s.Err())
	case codes.DeadlineExceeded:
		return peer + " gave no answer within " + to.timeout.String() + " (--timeout)"
	case codes.Unimplemented:
		return peer + " does not offer this: " + s.Message()
	case codes.ResourceExhausted:
		return peer + " ended the call, it is too much at once: " + s.Message()
	case codes.PermissionDenied, codes.Unauthenticated:
		return peer + " does not permit this: " + s.Message()
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return peer + " has a fault of its own: " + s.Message()
	}
	return s.Message()
}

// violations returns the faults that the server found, and a last one that says how many it left out.
func violations(err error) []*errdetails.BadRequest_FieldViolation {
	var (
		all   []*errdetails.BadRequest_FieldViolation
		total int
	)
	for _, detail := range status.Convert(err).Details() {
		switch detail := detail.(type) {
		case *errdetails.BadRequest:
			all = append(all, detail.GetFieldViolations()...)
		case *errdetails.ErrorInfo:
			total, _ = strconv.Atoi(detail.GetMetadata()["violations"])
		}
	}
	if left := total - len(all); len(all) > 0 && left > 0 {
		all = append(all, &errdetails.BadRequest_FieldViolation{Field: "…", Description: fmt.Sprintf("%d more faults", left)})
	}
	return all
}

// usersIn returns what an answer says of other resources that refer to the one which was to go.
func usersIn(s *status.Status) (users []*errdetails.PreconditionFailure_Violation) {
	for _, detail := range s.Details() {
		if failure, ok := detail.(*errdetails.PreconditionFailure); ok {
			for _, violation := range failure.GetViolations() {
				if violation.GetType() == "IN_USE" {
					users = append(users, violation)
				}
			}
		}
	}
	return users
}

// missingOf returns the names of the resources that would have to exist.
func missingOf(err error) (names []string) {
	for _, detail := range status.Convert(err).Details() {
		if failure, ok := detail.(*errdetails.PreconditionFailure); ok {
			for _, violation := range failure.GetViolations() {
				if violation.GetType() == "MISSING" {
					names = append(names, violation.GetSubject())
				}
			}
		}
	}
	return names
}

// answerText is what the server said, without how gRPC frames it.
func answerText(err error) string { return status.Convert(err).Message() }

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// isInvalid says whether the server refused the content of a request, rather than failing to serve it.
func isInvalid(err error) bool { return status.Code(err) == codes.InvalidArgument }

// isUnmet says whether the server refused a request because of other resources, or of what the resource is now.
func isUnmet(err error) bool { return status.Code(err) == codes.FailedPrecondition }

// isStale says whether the server refused a change because somebody else's came before it.
func isStale(err error) bool { return status.Code(err) == codes.Aborted }
