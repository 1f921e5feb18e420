package main

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// describeError puts an error in an operator's words. It is the only place that knows gRPC codes,
// beside isNotFound and isInvalid. Each violated field is on a line of its own, "field: description".
func describeError(err error, to settings) string {
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
	// What wraps the answer says which of several things it was about.
	if context, found := strings.CutSuffix(err.Error(), s.Err().Error()); found {
		text = context + text
	}
	for _, violation := range violations(err) {
		text += "\n  " + violation.GetField() + ": " + violation.GetDescription()
	}
	return text
}

func callText(s *status.Status, to settings) string {
	peer := "the policy server at " + to.server
	if to.agent != "" {
		peer = "the agent at " + to.agent
	}
	switch s.Code() {
	case codes.Unavailable:
		return peer + " cannot be reached: " + innermost(s.Message())
	case codes.DeadlineExceeded:
		return peer + " gave no answer within " + to.timeout.String() + " (--timeout)"
	case codes.Unimplemented:
		return peer + " does not offer this: " + s.Message()
	case codes.Aborted:
		return "the resource has changed since it was read: " + s.Message()
	case codes.ResourceExhausted:
		return peer + " ended the call, it is too much at once: " + s.Message()
	case codes.PermissionDenied, codes.Unauthenticated:
		return peer + " does not permit this: " + s.Message()
	case codes.Internal, codes.Unknown, codes.DataLoss:
		return peer + " has a fault of its own: " + s.Message()
	}
	return s.Message()
}

// innermost drops the layers that gRPC puts around the fault of a dialled connection.
func innermost(message string) string {
	if _, inner, found := strings.Cut(message, `rror while dialing: `); found {
		return strings.TrimSuffix(inner, `"`)
	}
	return message
}

func violations(err error) []*errdetails.BadRequest_FieldViolation {
	var all []*errdetails.BadRequest_FieldViolation
	for _, detail := range status.Convert(err).Details() {
		if bad, ok := detail.(*errdetails.BadRequest); ok {
			all = append(all, bad.GetFieldViolations()...)
		}
	}
	return all
}

// answerText is what the server said, without how gRPC frames it.
func answerText(err error) string { return status.Convert(err).Message() }

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }

// isInvalid says whether the server refused the content of a request, rather than failing to serve it.
func isInvalid(err error) bool { return status.Code(err) == codes.InvalidArgument }
