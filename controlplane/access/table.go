package access

import (
	"slices"

	"github.com/nameward/nameward/api/identity"
)

// rule says who may call a method, and what a call of it is to the server.
type rule struct {
	// needs is the least role; anybody is every caller with a certificate of ours.
	needs identity.Role
	class class
}

// anybody is no role: whoever is known at all may call.
const anybody identity.Role = ""

// class is a kind of call, with limits of its own.
type class string

const (
	reads   class = "read"   // an answer from memory
	watches class = "watch"  // a stream that lasts
	changes class = "change" // a write to disk
	syncs   class = "sync"   // the stream of a node
	probes  class = "probe"  // health and reflection
)

// table is the only place that says what a method needs.
func table() map[string]rule {
	const (
		policies     = "/nameward.v1.PolicyService/"
		domainSets   = "/nameward.v1.DomainSetService/"
		nodes        = "/nameward.v1.NodeService/"
		observations = "/nameward.v1.ObservationService/"
		audit        = "/nameward.v1.AuditService/"
	)
	return map[string]rule{
		policies + "GetPolicy":     {identity.Viewer, reads},
		policies + "ListPolicies":  {identity.Viewer, reads},
		policies + "WatchPolicies": {identity.Viewer, watches},
		policies + "CreatePolicy":  {identity.Editor, changes},
		policies + "UpdatePolicy":  {identity.Editor, changes},
		policies + "DeletePolicy":  {identity.Editor, changes},

		domainSets + "GetDomainSet":    {identity.Viewer, reads},
		domainSets + "ListDomainSets":  {identity.Viewer, reads},
		domainSets + "ListDomains":     {identity.Viewer, reads},
		domainSets + "CreateDomainSet": {identity.Editor, changes},
		domainSets + "UpdateDomainSet": {identity.Editor, changes},
		domainSets + "DeleteDomainSet": {identity.Editor, changes},
		domainSets + "AddDomains":      {identity.Editor, changes},
		domainSets + "RemoveDomains":   {identity.Editor, changes},
		domainSets + "ReplaceDomains":  {identity.Editor, changes},

		nodes + "GetNode":           {identity.Viewer, reads},
		nodes + "ListNodes":         {identity.Viewer, reads},
		nodes + "WatchNodes":        {identity.Viewer, watches},
		nodes + "GetRuleSet":        {identity.Viewer, reads},
		nodes + "ExplainConnection": {identity.Viewer, reads},
		nodes + "DeleteNode":        {identity.Admin, changes},

		observations + "ListMappings":    {identity.Viewer, reads},
		observations + "WatchMappings":   {identity.Viewer, watches},
		observations + "ListFlowEvents":  {identity.Viewer, reads},
		observations + "WatchFlowEvents": {identity.Viewer, watches},

		audit + "ListAuditEvents": {identity.Admin, reads},

		"/nameward.agent.v1.SyncService/Sync":  {identity.Node, syncs},
		"/nameward.peer.v1.RelayService/Relay": {identity.Server, watches},

		"/grpc.health.v1.Health/Check": {anybody, probes},
		"/grpc.health.v1.Health/List":  {anybody, probes},
		"/grpc.health.v1.Health/Watch": {anybody, watches},

		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      {identity.Viewer, probes},
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": {identity.Viewer, probes},
	}
}

// Methods returns the role that each method needs at least, empty where everybody with a certificate may call it.
func Methods() map[string]identity.Role {
	needs := map[string]identity.Role{}
	for method, r := range table() {
		needs[method] = r.needs
	}
	return needs
}

// includes reports whether a role may do what needs another. Of people and their programs each may do what the one
// before may; a node and a server may do nothing of theirs.
func includes(role, needs identity.Role) bool {
	if needs == anybody || role == needs {
		return true
	}
	ladder := []identity.Role{identity.Viewer, identity.Editor, identity.Admin}
	has, wants := slices.Index(ladder, role), slices.Index(ladder, needs)
	return wants >= 0 && has >= wants
}
