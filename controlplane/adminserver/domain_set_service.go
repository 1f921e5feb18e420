package adminserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/compile"
	"github.com/nameward/nameward/controlplane/policy"
	"github.com/nameward/nameward/controlplane/store"
)

// DomainSetService serves nameward.v1.DomainSetService. Requests must have passed the Validator.
type DomainSetService struct {
	namewardv1.UnimplementedDomainSetServiceServer

	store *store.Store
	log   *slog.Logger
	// editing holds a token while domains are added or removed: of many edits of one large set at the same
	// moment, each would else be computed again for each that was faster.
	editing chan struct{}
}

// NewDomainSetService returns the service.
func NewDomainSetService(s *store.Store, log *slog.Logger) *DomainSetService {
	return &DomainSetService{store: s, log: log, editing: make(chan struct{}, 1)}
}

// CreateDomainSet makes a domain set.
func (s *DomainSetService) CreateDomainSet(ctx context.Context, request *namewardv1.CreateDomainSetRequest) (*namewardv1.DomainSet, error) {
	set, err := parseDomainSet(&namewardv1.DomainSet{
		Name:        policy.DomainSetCollection + request.GetDomainSetId(),
		Description: request.GetDomainSet().GetDescription(), Domains: request.GetDomainSet().GetDomains(),
	})
	if err == nil {
		set, err = s.put(ctx, set, store.Guard{MustNotExist: true}, request.GetValidateOnly())
	}
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return set.Message(), nil
}

// GetDomainSet reads a domain set.
func (s *DomainSetService) GetDomainSet(_ context.Context, request *namewardv1.GetDomainSetRequest) (*namewardv1.DomainSet, error) {
	set, err := s.store.DomainSet(request.GetName())
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return set.Message(), nil
}

// ListDomainSets lists domain sets in order of their names.
func (s *DomainSetService) ListDomainSets(_ context.Context, request *namewardv1.ListDomainSetsRequest) (*namewardv1.ListDomainSetsResponse, error) {
	after, err := parsePageToken(request)
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	sets, more, err := s.store.ListDomainSets(after, pageSize(request.GetPageSize()))
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	response, size := &namewardv1.ListDomainSetsResponse{}, 0
	for i, set := range sets {
		message := set.Message()
		size += proto.Size(message)
		if i > 0 && size > pageBytes {
			more = true
			break
		}
		response.DomainSets = append(response.DomainSets, message)
		after = set.Name
	}
	if more {
		response.NextPageToken = token.Page(request, after)
	}
	return response, nil
}

// UpdateDomainSet changes a domain set, whole or the fields of a mask.
func (s *DomainSetService) UpdateDomainSet(ctx context.Context, request *namewardv1.UpdateDomainSetRequest) (*namewardv1.DomainSet, error) {
	if err := checkMask(domainSetDescriptor(), request.GetUpdateMask().GetPaths()); err != nil {
		// The set's own faults belong into the same answer.
		return nil, toStatus(s.log, errors.Join(err, domainSetFaults(request)))
	}
	set, err := winRaces(request.GetDomainSet().GetEtag(), request.GetAllowMissing(), func() (*policy.DomainSet, error) {
		return s.update(ctx, request)
	})
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return set.Message(), nil
}

// update merges the request with the set as it is now, and puts the result if it still is.
func (s *DomainSetService) update(ctx context.Context, request *namewardv1.UpdateDomainSetRequest) (*policy.DomainSet, error) {
	changes, paths := request.GetDomainSet(), request.GetUpdateMask().GetPaths()
	asked, err := parseDomainSet(&namewardv1.DomainSet{Name: changes.GetName(), Description: changes.GetDescription(), Domains: changes.GetDomains()})
	if err != nil {
		return nil, err
	}
	current, err := s.store.DomainSet(changes.GetName())
	if errors.Is(err, store.ErrNotFound) && request.GetAllowMissing() {
		// AIP-134: a set that is made takes all fields, whatever the mask.
		return s.put(ctx, asked, store.Guard{Etag: changes.GetEtag(), MustNotExist: true}, request.GetValidateOnly())
	}
	if err != nil {
		return nil, err
	}
	if err := (store.Guard{Etag: changes.GetEtag()}).Check(current.Name, current.Etag); err != nil {
		return nil, err
	}
	merged := *current
	merged.Description = applyMask(current.Header(), changes, paths).GetDescription()
	if len(asked.Domains) > 0 && len(paths) == 0 || slices.Contains(paths, "*") || slices.Contains(paths, "domains") {
		if len(asked.Domains) == 0 && !current.Inline() {
			return nil, fmt.Errorf("%s: %w", current.Name, errNotInline)
		}
		merged.DomainSet = asked.DomainSet
	}
	return s.put(ctx, &merged, store.Guard{Etag: current.Etag, MustExist: true}, request.GetValidateOnly())
}

// parseDomainSet reads the set of a request that has it in `domain_set`.
func parseDomainSet(message *namewardv1.DomainSet) (*policy.DomainSet, error) {
	set, err := policy.ParseDomainSet(message)
	return set, within("domain_set", errors.Join(err, checkNames("domains", message.GetDomains(), 0)))
}

// put stores a set, or only says what would be stored.
func (s *DomainSetService) put(ctx context.Context, set *policy.DomainSet, guard store.Guard, validateOnly bool) (*policy.DomainSet, error) {
	if err := s.admit(set); err != nil {
		return nil, err
	}
	if validateOnly {
		return set, s.check(set.Name, guard)
	}
	return s.store.PutDomainSet(ctx, set, guard)
}

// admit refuses a set that is too large, or with which a node would have to hold more than it can. What is
// put at the same moment is not seen together; then the node says so, and keeps what it has.
func (s *DomainSetService) admit(set *policy.DomainSet) error {
	if len(set.Domains) > policy.MaxDomains {
		return tooLarge(set.Name)
	}
	// Nearly always all that there is would fit on one node.
	size, current := s.store.Size().Plus(set.Size()), s.current(set.Name)
	if current != nil {
		size = size.Minus(current.Size())
	}
	if compile.Fits(size) {
		return nil
	}
	concerned, err := s.store.PoliciesOf(set.Name)
	if err != nil || len(concerned) == 0 {
		return err
	}
	if current != nil {
		if _, added := ruleset.Difference(current.Domains, set.Domains); len(added) == 0 {
			return nil
		}
	}
	snapshot, _, _ := s.store.Snapshot()
	return admit(s.store, set.Name, snapshot.WithDomainSet(set), concerned)
}

// current returns the set of a name that there is; nil for none.
func (s *DomainSetService) current(name string) *policy.DomainSet {
	set, err := s.store.DomainSet(name)
	if err != nil {
		return nil
	}
	return set
}

func tooLarge(name string) error {
	return fmt.Errorf("%s: %w, which is %d", name, errTooLarge, policy.MaxDomains)
}

// check returns what the guard says now.
func (s *DomainSetService) check(name string, guard store.Guard) error {
	current, err := s.store.DomainSet(name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return guard.Check(name, "")
	case err != nil:
		return err
	default:
		return guard.Check(name, current.Etag)
	}
}

// DeleteDomainSet deletes a domain set.
func (s *DomainSetService) DeleteDomainSet(ctx context.Context, request *namewardv1.DeleteDomainSetRequest) (*emptypb.Empty, error) {
	guard := store.Guard{Etag: request.GetEtag(), MustExist: true}
	var err error
	if request.GetValidateOnly() {
		if err = s.check(request.GetName(), guard); err == nil {
			err = s.store.CheckUnreferenced(request.GetName())
		}
	} else {
		err = s.store.DeleteDomainSet(ctx, request.GetName(), guard)
	}
	if errors.Is(err, store.ErrNotFound) && request.GetAllowMissing() {
		err = nil
	}
	if err != nil {
		return nil, toStatus(s.log, err)
	}
	return &emptypb.Empty{}, nil
}
