package syncserver

import (
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/nameward/nameward/api/flow"
	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/controlplane/ingest"
	"github.com/nameward/nameward/controlplane/store"
)

// report keeps what the node says of itself. A fault is logged when it is new.
func (s *session) report(report *agentv1.StatusReport, now time.Time) {
	if boundReport(report) {
		s.bounded("status")
	}
	s.reported = report.GetDegraded()
	degraded := s.faults(now)
	servers, addresses := s.endpoints("policy server", report.GetPolicyServers()), s.addresses(report.GetAddresses())
	if until := report.GetCertificateExpireTime(); until.IsValid() {
		s.expires.Store(until.AsTime().Unix())
	}
	s.update(now, func(status *store.NodeStatus) {
		for _, fault := range report.GetDegraded() {
			if !slices.Contains(status.Degraded, fault) {
				s.log.Warn("node is degraded", "fault", fault)
			}
		}
		status.Counters, status.Degraded = report.GetCounters(), degraded
		status.CertificateExpiry = s.certificateExpiry()
		status.PolicyServers = servers
		status.Addresses, status.MoreAddresses = addresses, report.GetMoreAddresses()
	})
}

func (s *session) observe(observations *agentv1.Observations, now time.Time) {
	batch := ingest.Batch{SnapshotBegin: observations.GetSnapshotBegin(), SnapshotEnd: observations.GetSnapshotEnd()}
	apart := s.readClock(observations, now)
	for _, message := range observations.GetMappings() {
		m, err := ingest.FromProto(s.id, message)
		if err != nil {
			s.refuseReport(message, err)
			continue
		}
		m.Shift(apart)
		batch.Mappings = append(batch.Mappings, m)
	}
	s.server.mappings.Observe(s.id, batch, now)
	s.observeFlows(observations.GetFlowEvents(), now)
	s.taken = max(s.taken, observations.GetBatch())
	s.notify()
	if now.Sub(s.contact) >= contactInterval {
		s.update(now, func(*store.NodeStatus) {})
	}
}

func (s *session) observeFlows(messages []*namewardv1.FlowEvent, now time.Time) {
	events := make([]*flow.Event, 0, len(messages))
	for _, message := range messages {
		e, err := flow.FromProto(message)
		if err != nil {
			s.refuseReport(message, err)
			continue
		}
		events = append(events, e)
	}
	s.server.flows.Observe(s.id, events, now)
}

// bounded counts that something was left out because it was too much.
func (s *session) bounded(what string) {
	s.server.metrics.bounded.Inc()
	if !s.overstated {
		s.overstated = true
		s.log.Warn("node says too much of itself, and the rest is left out", "in", what)
	}
}

// refuseReport counts a mapping or flow event that cannot be read.
func (s *session) refuseReport(message proto.Message, err error) {
	s.server.metrics.refusedReports.Inc()
	if !s.complained {
		s.complained = true
		s.log.Warn("unreadable observation", "observation", cutText(fmt.Sprint(message)), "err", cutText(err.Error()))
	}
}

// update changes the node's status; every message is a contact.
func (s *session) update(now time.Time, change func(*store.NodeStatus)) {
	s.contact = now
	s.server.statuses.change(s.status, func(status *store.NodeStatus) {
		if s.speaksIn(status) {
			status.LastContact = now
			change(status)
		}
	})
}
