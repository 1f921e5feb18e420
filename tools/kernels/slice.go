package main

// bothBackends is the slice of the end-to-end tests that runs on each backend, with IPv4 and IPv6: one for each
// promise that the kernel has a part in. Left out are those that build other releases, which takes a compiler,
// and those that flood or measure.
var bothBackends = []string{
	"TestEnforcement", "TestAnswersOverTCP", "TestRefusedQuestion", "TestEstablishedIsCut", "TestProcesses", "TestAgentDeath",
}

// anyBackend is the slice of those that are the same on each.
var anyBackend = []string{"TestRules", "TestAnswersInFragments"}

// slicePart is short enough to be passed with every change: each program is loaded, the rules stand on each
// backend, and on one names open doors. An agent takes most of a minute of CPU to start here.
func slicePart() part {
	p := part{name: "slice", backend: "nft"}
	p.jobs = []job{
		testJob("./bpf", oneOf([]string{"TestVerifiedInstructions"}), ""),
		testJob("./dataplane/netfilter", oneOf([]string{"TestEnsureIsIdempotent"}), ""),
		testJob(endToEnd, oneOf([]string{"TestEnforcement"})+"/^nft$", ""),
	}
	return p
}
