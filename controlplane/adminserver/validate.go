package adminserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"buf.build/go/protovalidate"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/nameward/nameward/api/flow"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/policy"
)

// Validator enforces the constraints of the protos on every request before a handler sees it.
type Validator struct {
	rules protovalidate.Validator
	log   *slog.Logger
}

// NewValidator returns a Validator. The constraints of a message are compiled when it is first met.
func NewValidator(log *slog.Logger) (*Validator, error) {
	rules, err := protovalidate.New()
	if err != nil {
		return nil, fmt.Errorf("make validator: %w", err)
	}
	return &Validator{rules: rules, log: log}, nil
}

// Unary is a grpc.UnaryServerInterceptor.
func (v *Validator) Unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if err := v.check(request); err != nil {
		return nil, toStatus(v.log, err)
	}
	return handler(ctx, request)
}

// Stream is a grpc.StreamServerInterceptor: each message of the client is checked as it is received.
func (v *Validator) Stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return handler(server, &checkedStream{stream, v})
}

type checkedStream struct {
	grpc.ServerStream
	validator *Validator
}

// Unwrap returns the stream that it was made of, on which messages are not checked.
func (s *checkedStream) Unwrap() grpc.ServerStream { return s.ServerStream }

// RecvMsg receives a message and checks it.
func (s *checkedStream) RecvMsg(message any) error {
	if err := s.ServerStream.RecvMsg(message); err != nil {
		return err // io.EOF and status errors must stay what they are
	}
	return toStatus(s.validator.log, s.validator.check(message))
}

// check returns a *ruleset.FieldError for every fault.
func (v *Validator) check(request any) error {
	message, ok := request.(proto.Message)
	if !ok {
		return nil
	}
	// Of what agents say nothing but hello has constraints, and the rest is most of what the server hears.
	if r, ok := request.(*agentv1.SyncRequest); ok && r.GetHello() == nil {
		return nil
	}
	// Its handler finds all that the constraints say too, and whether there is such a node besides.
	if _, ok := request.(*namewardv1.ExplainConnectionRequest); ok {
		return nil
	}
	err := v.rules.Validate(message)
	if err == nil {
		return nil
	}
	var found *protovalidate.ValidationError
	if !errors.As(err, &found) {
		return fmt.Errorf("validate %T: %w", request, err)
	}
	// The handler, which would find the faults that no constraint can state, does not get to see this
	// request. The client shall hear of all of them at once.
	faults := ruleset.FieldErrors(handlerFaults(message))
	known := make(map[string]bool, len(faults))
	for _, fault := range faults {
		known[fault.Field] = true
	}
	var all []error
	for _, violation := range found.Violations {
		// Of two sayings about one field the parser's is in the operator's words.
		if fault := toFieldError(violation); !known[fault.Field] {
			all = append(all, fault)
		}
	}
	for _, fault := range faults {
		all = append(all, fault)
	}
	return errors.Join(all...)
}

// handlerFaults returns the faults of a request that its handler finds.
func handlerFaults(request proto.Message) error {
	var err error
	switch r := request.(type) {
	case *namewardv1.UpdatePolicyRequest:
		err = errors.Join(checkMask(policyDescriptor(), r.GetUpdateMask().GetPaths()), policyFaults(r))
	case *namewardv1.ListPoliciesRequest:
		_, tokenErr := parsePageToken(r)
		_, domainErr := filteredDomain(r.GetFilter())
		err = errors.Join(tokenErr, domainErr)
	case *namewardv1.UpdateDomainSetRequest:
		err = errors.Join(checkMask(domainSetDescriptor(), r.GetUpdateMask().GetPaths()), domainSetFaults(r))
	case *namewardv1.ListDomainSetsRequest:
		_, err = parsePageToken(r)
	case *namewardv1.ListDomainsRequest:
		_, _, err = parseListDomains(r)
	case *namewardv1.ListNodesRequest:
		_, err = parsePageToken(r)
	case *namewardv1.ListMappingsRequest:
		_, _, err = parseListMappings(r)
	case *namewardv1.ListFlowEventsRequest:
		_, _, err = parseListFlowEvents(r)
	case *namewardv1.ListAuditEventsRequest:
		_, _, err = parseListAuditEvents(r)
	case *namewardv1.WatchMappingsRequest:
		_, err = ingest.ParseFilter(r.GetFilter())
	case *namewardv1.GetRuleSetRequest:
		err = checkWhose(r.GetNode(), r.GetLabels())
	case *namewardv1.WatchFlowEventsRequest:
		_, err = flow.ParseFilter("filter", r.GetFilter())
	default:
		err = errors.Join(policyFaults(request), domainSetFaults(request))
	}
	return err
}

// domainSetFaults parses the domain set, or the domains, of a request that has them.
func domainSetFaults(request proto.Message) error {
	var err error
	switch r := request.(type) {
	case *namewardv1.CreateDomainSetRequest:
		// The name is made of domain_set_id, which has a constraint of its own.
		_, err = parseDomains(r.GetDomainSet().GetDomains(), 0)
		err = within("domain_set", err)
	case *namewardv1.UpdateDomainSetRequest:
		if r.GetDomainSet() != nil {
			_, err = parseDomainSet(r.GetDomainSet())
		}
	case *namewardv1.AddDomainsRequest:
		_, err = parseDomains(r.GetDomains(), 0)
	case *namewardv1.RemoveDomainsRequest:
		_, err = policy.ParseDomains(r.GetDomains(), 0)
	case *namewardv1.ReplaceDomainsRequest:
		// Only the first message of a stream, which says the name, is known to count from 0.
		if r.GetName() != "" {
			_, err = parseDomains(r.GetDomains(), 0)
		}
	}
	return err
}

// policyFaults parses the policy of a request that has one.
func policyFaults(request proto.Message) error {
	switch r := request.(type) {
	case *namewardv1.CreatePolicyRequest:
		if r.GetPolicy() == nil {
			return nil
		}
		// The name is made of policy_id, which has a constraint of its own.
		_, err := ruleset.ParsePolicy(r.GetPolicy())
		return within("policy", errors.Join(err, checkNamesOf(r.GetPolicy())))
	case *namewardv1.UpdatePolicyRequest:
		if r.GetPolicy() == nil {
			return nil
		}
		_, err := policy.Parse(policy.Copy(r.GetPolicy()))
		return within("policy", errors.Join(err, checkNamesOf(r.GetPolicy())))
	default:
		return nil
	}
}

func toFieldError(violation *protovalidate.Violation) *ruleset.FieldError {
	reason := violation.Proto.GetMessage()
	if reason == "" {
		reason = violation.Proto.GetRuleId()
	}
	return &ruleset.FieldError{
		Field:  protovalidate.FieldPathString(violation.Proto.GetField()),
		Value:  text(violation.FieldDescriptor, violation.FieldValue),
		Reason: reason,
	}
}

// text returns the value of a field as the operator wrote it; of a list or message only how large it is.
func text(field protoreflect.FieldDescriptor, value protoreflect.Value) string {
	switch v := value.Interface().(type) {
	case nil, protoreflect.Message:
		return ""
	case protoreflect.List:
		return fmt.Sprintf("%d items", v.Len())
	case protoreflect.Map:
		return fmt.Sprintf("%d pairs", v.Len())
	case protoreflect.EnumNumber:
		if field != nil && field.Enum() != nil {
			if name := field.Enum().Values().ByNumber(v); name != nil {
				return string(name.Name())
			}
		}
		return fmt.Sprint(v)
	default:
		return value.String()
	}
}
