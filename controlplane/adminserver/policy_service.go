package adminserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// pageBytes bounds a page, whatever its size in items: clients refuse messages over 4 MiB by default.
const pageBytes = 2 << 20

// PolicyService serves nameward.v1.PolicyService. Requests must have passed the Validator.
type PolicyService struct {
	namewardv1.UnimplementedPolicyServiceServer

	store    *store.Store
	log      *slog.Logger
	stopping <-chan struct{}
}

// NewPolicyService returns the service. When stopping closes, its streams end with UNAVAILABLE.
func NewPolicyService(s *store.Store, log *slog.Logger, stopping <-chan struct{}) *PolicyService {
	return &PolicyService{store: s, log: log, stopping: stopping}
}

// CreatePolicy makes a policy.
func (s *PolicyService) CreatePolicy(ctx context.Context, request *namewardv1.CreatePolicyRequest) (*namewardv1.Policy, error) {
	message := policy.WithoutOutput(request.GetPolicy())
	message.Name = policy.Collection + request.GetPolicyId()
	made, err := s.put(ctx, message, store.Guard{MustNotExist: true}, request.GetValidateOnly())
	return made, toStatus(s.log, err)
}

// GetPolicy reads a policy.
func (s *PolicyService) GetPolicy(_ context.Context, request *namewardv1.GetPolicyRequest) (*namewardv1.Policy, error) {
	p, err := s.store.Policy(request.GetName())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return p.Message, nil
}

// ListPolicies lists policies in order of their names.
func (s *PolicyService) ListPolicies(_ context.Context, request *namewardv1.ListPoliciesRequest) (*namewardv1.ListPoliciesResponse, error) {
	after, err := parsePageToken(request)
	filter, filterErr := policyFilter(s.store, request.GetFilter())
	if err := errors.Join(err, filterErr); err != nil {
		return nil, toStatus(s.log, err)
	}
	policies, more, err := s.store.ListPolicies(after, pageSize(request.GetPageSize()), filter)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	response, size := &namewardv1.ListPoliciesResponse{}, 0
	for i, p := range policies {
		size += proto.Size(p.Message)
		if i > 0 && size > pageBytes {
			more = true
			break
		}
		response.Policies = append(response.Policies, p.Message)
		after = p.Name
	}
	if more {
		response.NextPageToken = token.Page(request, after)
	}
	return response, nil
}

// UpdatePolicy changes a policy, whole or the fields of a mask.
func (s *PolicyService) UpdatePolicy(ctx context.Context, request *namewardv1.UpdatePolicyRequest) (*namewardv1.Policy, error) {
	if err := checkMask(policyDescriptor(), request.GetUpdateMask().GetPaths()); err != nil {
		// The policy's own faults belong into the same answer.
		return nil, toStatus(s.log, errors.Join(err, policyFaults(request)))
	}
	made, err := winRaces(request.GetPolicy().GetEtag(), request.GetAllowMissing(), func() (*namewardv1.Policy, error) {
		return s.update(ctx, request)
	})
	return made, toStatus(s.log, err)
}

// winRaces repeats a change that merges with what there is until no other change comes between. With an etag
// of the client's, a race is the client's to know of; without one, it is ours to win: merge again with what
// the other left. NOT_FOUND counts as a race only where that does not end the matter.
func winRaces[R any](etag string, allowMissing bool, change func() (R, error)) (R, error) {
	for {
		made, err := change()
		raced := errors.Is(err, store.ErrStale) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) && allowMissing
		if etag != "" || !raced {
			return made, err
		}
	}
}

// update merges the request with the policy as it is now, and puts the result if it still is.
func (s *PolicyService) update(ctx context.Context, request *namewardv1.UpdatePolicyRequest) (*namewardv1.Policy, error) {
	changes := request.GetPolicy()
	current, err := s.store.Policy(changes.GetName())
	if errors.Is(err, store.ErrNotFound) && request.GetAllowMissing() {
		// AIP-134: a policy that is made takes all fields, whatever the mask.
		guard := store.Guard{Etag: changes.GetEtag(), MustNotExist: true}
		return s.put(ctx, policy.WithoutOutput(changes), guard, request.GetValidateOnly())
	}
	if err != nil {
		return nil, err
	}
	if err := (store.Guard{Etag: changes.GetEtag()}).Check(changes.GetName(), current.Etag); err != nil {
		return nil, err
	}
	merged := applyMask(policy.Copy(current.Message), changes, request.GetUpdateMask().GetPaths())
	return s.put(ctx, merged, store.Guard{Etag: current.Etag, MustExist: true}, request.GetValidateOnly())
}

// put parses a policy and stores it, or only says what would be stored.
func (s *PolicyService) put(ctx context.Context, message *namewardv1.Policy, guard store.Guard, validateOnly bool) (*namewardv1.Policy, error) {
	parsed, err := policy.Parse(message)
	if err := errors.Join(err, checkNamesOf(message)); err != nil {
		return nil, within("policy", err)
	}
	// Before it is counted what the sets hold; whether they still are there is judged anew with the write.
	if err := s.store.CheckReferences(parsed); err != nil {
		return nil, within("policy", err)
	}
	if err := s.admit(parsed); err != nil {
		return nil, err
	}
	if validateOnly {
		return message, s.check(message.GetName(), guard)
	}
	stored, err := s.store.PutPolicy(ctx, parsed, guard)
	if err != nil {
		return nil, within("policy", err)
	}
	return stored.Message, nil
}

// admit refuses a policy with which a node would have to hold more than it can. Two policies that are put at
// the same moment are not seen together; then the node says so, and keeps what it has.
func (s *PolicyService) admit(p *policy.Policy) error {
	// Most writes ask for no more than before: they need no walk over all policies.
	if current, err := s.store.Policy(p.Name); err == nil && !compile.AsksForMore(current, p) {
		return nil
	}
	// Nor do others, where all there is would fit on one node.
	if compile.Fits(s.store.Size().Plus(p.Size)) {
		return nil
	}
	snapshot, _, _ := s.store.Snapshot()
	return admit(s.store, p.Name, snapshot.WithPolicy(p), []*policy.Policy{p})
}

// admit refuses a change of a resource after which a node that a concerned policy selects would have to hold
// more than it can.
func admit(s *store.Store, name string, next policy.Snapshot, concerned []*policy.Policy) error {
	nodes, _ := s.Nodes()
	labels := make([]map[string]string, len(nodes))
	for i, n := range nodes {
		labels[i] = n.Labels
	}
	if err := compile.Admit(next, concerned, labels); err != nil {
		return fmt.Errorf("%s: %w: %w", name, errCapacity, err)
	}
	return nil
}

// check returns what the guard says now.
func (s *PolicyService) check(name string, guard store.Guard) error {
	current, err := s.store.Policy(name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return guard.Check(name, "")
	case err != nil:
		return err
	default:
		return guard.Check(name, current.Etag)
	}
}

// DeletePolicy deletes a policy.
func (s *PolicyService) DeletePolicy(ctx context.Context, request *namewardv1.DeletePolicyRequest) (*emptypb.Empty, error) {
	guard := store.Guard{Etag: request.GetEtag(), MustExist: true}
	var err error
	if request.GetValidateOnly() {
		err = s.check(request.GetName(), guard)
	} else {
		err = s.store.DeletePolicy(ctx, request.GetName(), guard)
	}
	if errors.Is(err, store.ErrNotFound) && request.GetAllowMissing() {
		err = nil
	}
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return &emptypb.Empty{}, nil
}

// WatchPolicies streams policies: a snapshot, then changes.
func (s *PolicyService) WatchPolicies(request *namewardv1.WatchPoliciesRequest, stream grpc.ServerStreamingServer[namewardv1.WatchPoliciesResponse]) error {
	after, reset, err := s.resumePoint(request.GetResumeToken())
	if err != nil {
		return toStatus(s.log, err)
	}
	ctx, release := untilStopping(stream.Context(), s.stopping)
	defer release()
	for change := range s.store.WatchPolicies(ctx, after) {
		change.Reset = change.Reset || reset
		reset = false
		if err := stream.Send(s.watchResponse(change)); err != nil {
			return toStatus(s.log, err)
		}
	}
	return toStatus(s.log, context.Cause(ctx))
}

// resumePoint returns the revision to go on from. For a token of another store, or of an unfinished
// snapshot, that is 0, and the client has to forget what it got before.
func (s *PolicyService) resumePoint(token string) (after uint64, reset bool, err error) {
	if token == "" {
		return 0, false, nil
	}
	storeID, revision, err := parseResumeToken(token)
	if err != nil {
		return 0, false, err
	}
	if storeID != s.store.ID() || revision == 0 {
		return 0, true, nil
	}
	return revision, false, nil
}

func (s *PolicyService) watchResponse(change store.PolicyChange) *namewardv1.WatchPoliciesResponse {
	response := &namewardv1.WatchPoliciesResponse{
		Reset_:      change.Reset,
		Synced:      change.Synced,
		ResumeToken: resumeToken(s.store.ID(), change.Revision),
	}
	switch {
	case change.Policy != nil:
		response.Change = namewardv1.WatchPoliciesResponse_PUT
		response.Policy = change.Policy.Message
	case change.Deleted != "":
		response.Change = namewardv1.WatchPoliciesResponse_DELETE
		response.Policy = &namewardv1.Policy{Name: change.Deleted}
	}
	return response
}

// untilStopping returns a context that ends with ctx, or with errStopping when the channel closes. release
// must be called; it waits for the goroutine that watches both.
func untilStopping(ctx context.Context, stopping <-chan struct{}) (bounded context.Context, release func()) {
	bounded, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-stopping:
			cancel(errStopping)
		case <-bounded.Done():
		}
	}()
	return bounded, func() {
		cancel(context.Canceled)
		<-done
	}
}
