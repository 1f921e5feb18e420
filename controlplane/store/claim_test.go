package store_test

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/controlplane/store"
)

// Servers that hear what others say of a node in different orders come to the same.
func TestClaimsAreJudgedAlike(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// Of each server what it said last; an agent that moves has a higher number where it comes later.
		var said []store.NodeStatus
		number := int64(0)
		for _, server := range []string{"a", "b", "c"} {
			number += rapid.Int64Range(1, 3).Draw(rt, "step")
			said = append(said, store.NodeStatus{
				Connected: rapid.Bool().Draw(rt, "connected"),
				Claim:     store.Claim{Server: server, Instance: "one", Number: number},
			})
		}
		// A second agent, which was refused everywhere but at one server.
		if rapid.Bool().Draw(rt, "second") {
			said[rapid.IntRange(0, 2).Draw(rt, "at")].Claim.Instance = "two"
			said = said[1:]
		}
		winner := func(order []store.NodeStatus) string {
			var now store.NodeStatus
			for i, status := range order {
				if i == 0 || now.YieldsTo(&status) {
					now = status
				}
			}
			return now.Claim.Server
		}
		want := winner(said)
		slices.Reverse(said)
		if got := winner(said); got != want {
			rt.Fatalf("%+v: %s in one order, %s in the other", said, want, got)
		}
	})
}
