package main

// bothBackends is the slice of the end-to-end tests that runs on each backend, with IPv4 and IPv6: a test for
// each promise. Left out are those that build other releases or look at the repository with programs that the
// guest does not have, and those that measure or flood.
var bothBackends = []string{
	"TestEnforcement",
}

// anyBackend is the slice of those that are the same on each.
var anyBackend = []string{
	"TestRules",
}

// slicePart is short enough to be passed with every change.
func slicePart() part {
	p := part{name: "slice", backend: "nft"}
	p.jobs = []job{
		testJob("./bpf", oneOf([]string{"TestVerifiedInstructions", "TestDifferencesFound"}), ""),
		testJob("./dataplane/netfilter", oneOf([]string{"TestEnsureIsIdempotent"}), ""),
		testJob(endToEnd, oneOf([]string{"TestEnforcement"}), ""),
	}
	return p
}
