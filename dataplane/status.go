package dataplane

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/dataplane/enforce"
	"github.com/nameward/nameward/dataplane/observe"
	"github.com/nameward/nameward/dataplane/subscribe"
)

// agentStatus says how the agent does: to the server, on the local socket, and as metrics.
type agentStatus struct {
	node    node.ID
	labels  map[string]string
	backend string
	started time.Time

	counters   func() (map[string]uint64, error)
	takeIn     func() error
	table      *observe.Table
	flows      *observe.Flows
	reconciler *enforce.Reconciler
	fault      func() error // of the datapath
	advice     *advice
	security   *security
	connection func() subscribe.Connection
	ended      func() subscribe.Ended // what became of the streams to policy servers
	addresses  *nodeAddresses
	log        *slog.Logger
}

// TakeIn has what the kernel told until now in the tables.
func (s *agentStatus) TakeIn() {
	if err := s.takeIn(); err != nil {
		s.log.Warn("events not taken in", "err", err)
	}
}

// follow has the status say what a subscriber is connected to.
func (s *agentStatus) follow(subscriber *subscribe.Subscriber) {
	s.connection = func() subscribe.Connection {
		connection, _ := subscriber.Connection()
		return connection
	}
	s.ended = subscriber.Ended
}

// Counters returns what the datapath counted, what became of connections that are no longer allowed, and how many
// faults of the packet filter's rules were mended.
func (s *agentStatus) Counters() (map[string]uint64, error) {
	counters, err := s.counters()
	if err != nil {
		return nil, err
	}
	state, _ := s.reconciler.State()
	counters["connections_cut"], counters["connections_kept"] = state.Cut.Cut, state.Cut.Kept
	counters["connections_restored"], counters["connections_cut_faults"] = state.Cut.Restored, state.Cut.Faults
	counters["mended_rules"] = state.Mended
	return counters, nil
}

// Degraded returns the faults that persist, each with its remedy.
func (s *agentStatus) Degraded() ([]string, <-chan struct{}) {
	state, changed := s.reconciler.State()
	var faults []string
	if r := state.Refusal; r != nil {
		remedy := "change the policies that it comes from"
		if errors.Is(r.Err, enforce.ErrFull) {
			remedy = "make the policies smaller"
		}
		faults = append(faults, fmt.Sprintf("revision %d is not in force, the last good one is: %v. Remedy: %s; it is tried again now and then", r.Revision.Number, r.Err, remedy))
	}
	if errors.Is(state.HooksErr, enforce.ErrOverlap) {
		faults = append(faults, fmt.Sprintf("%v. Remedy: none is needed, it takes as long as a question waits for its answer", state.HooksErr))
	} else if state.HooksErr != nil {
		faults = append(faults, fmt.Sprintf("%v. Remedy: see what `nameward-agent check` says; it is tried again every few seconds", state.HooksErr))
	}
	if state.CutErr != nil {
		faults = append(faults, fmt.Sprintf("%v. Remedy: see that the kernel has nf_conntrack_netlink and connection labels; it is tried again every minute", state.CutErr))
	}
	if state.SaveErr != nil {
		faults = append(faults, fmt.Sprintf("%v. Remedy: make room on the disk, and the state directory writable; after a reboot an older rule set would come back", state.SaveErr))
	}
	if err := s.fault(); err != nil {
		faults = append(faults, fmt.Sprintf("%v. Remedy: make room on the disk, and the state directory writable; should the agent end now, what was resolved since is known to the kernel alone", err))
	}
	faults = append(faults, s.security.faults(time.Now())...)
	return append(faults, s.advice.Faults()...), changed
}

// Addresses puts what the node always allows into a report to the server, and until when its certificate is good.
func (s *agentStatus) Addresses(report *agentv1.StatusReport) error {
	own, more, err := s.addresses.reported()
	report.CertificateExpireTime = s.security.expiry()
	report.PolicyServers, report.Addresses, report.MoreAddresses = endpointTexts(s.addresses.Servers()), prefixTexts(own), more
	return err
}

// Rules returns the rule set in force; nil for none.
func (s *agentStatus) Rules() *ruleset.RuleSet {
	state, _ := s.reconciler.State()
	if state.InForce == nil {
		return nil
	}
	return state.InForce.Rules
}

// Status returns all of it.
func (s *agentStatus) Status() *agentv1.GetStatusResponse {
	state, _ := s.reconciler.State()
	connection := s.connection()
	degraded, _ := s.Degraded()
	if connection.Server == "" && connection.Err != nil {
		degraded = append(degraded, fmt.Sprintf("not connected to a policy server: %s. Remedy: see that it runs, can be reached and takes this node's certificate; the last rule set stays in force", transport.Words(connection.Err)))
	}
	if connection.Refused != nil {
		degraded = append(degraded, fmt.Sprintf("%v. Remedy: see that this is the right policy server and that its data is there; else apply a policy for this node, which takes the place of all", connection.Refused))
	}
	status := &namewardv1.NodeStatus{
		Connected: connection.Server != "", AgentVersion: Version(), Kernel: kernelRelease(), IptablesBackend: s.backend,
	}
	if state.InForce != nil {
		status.WantedRevision, status.AppliedRevision = state.InForce.Number, state.InForce.Number
		status.RuleSetId = state.InForce.ID.String()
		status.AppliedTime = timestamppb.New(state.Since)
	}
	if state.Refusal != nil {
		status.WantedRevision, status.LastError = state.Refusal.Revision.Number, state.Refusal.Err.Error()
	}
	var report agentv1.StatusReport
	err := s.Addresses(&report)
	if err != nil {
		s.log.Warn("addresses not read", "err", err)
	}
	status.TrustedResolvers, status.PolicyServers = endpointTexts(s.addresses.Resolvers()), report.GetPolicyServers()
	status.Addresses, status.MoreAddresses = report.GetAddresses(), report.GetMoreAddresses()
	status.CertificateExpireTime = report.GetCertificateExpireTime()
	if status.Counters, err = s.Counters(); err != nil {
		s.log.Warn("counters not read", "err", err)
	}
	return &agentv1.GetStatusResponse{
		Node:                 &namewardv1.Node{Name: s.node.ResourceName(), Labels: maps.Clone(s.labels), Status: status},
		Server:               connection.Server,
		ConnectionChangeTime: timestamppb.New(connection.Changed),
		LiveMappings:         uint64(s.table.Len()), //nolint:gosec // a count
		Degraded:             degraded,
		StartTime:            timestamppb.New(s.started),
	}
}

func kernelRelease() string {
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}
