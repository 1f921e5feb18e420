package e2e_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// TestExplainProcesses: explain and the kernel agree on which process a policy selects.
func TestExplainProcesses(t *testing.T) {
	f := newFleet(t)
	e := newExplainer(f)
	uid := uint32(1234)
	policy := clientPolicy("api.example")
	policy.Workloads = []*namewardv1.Workload{{Uid: &uid}}
	f.put(policy)
	address := f.learn(t, lab.ResolverV4, "api.example")
	for _, c := range []struct {
		user   string
		to     netip.Addr
		passes bool
	}{
		{"1234", address, true},
		{"1234", netip.MustParseAddr("198.18.210.1"), false},
		{"1235", netip.MustParseAddr("198.18.210.1"), true},
	} {
		connect := fmt.Sprintf("exec 3<>/dev/tcp/%s/%d", c.to, lab.ServicePort)
		_, err := f.command(t.Context(), "setpriv", "--reuid", c.user, "--clear-groups", "bash", "-c", connect)
		if _, exited := err.(*exec.ExitError); err != nil && !exited { //nolint:errorlint // of Command itself
			t.Fatal(err)
		}
		if passed := err == nil; passed != c.passes {
			t.Errorf("user %s to %s: passed: %v, want %v", c.user, c.to, passed, c.passes)
		}
		answer := e.explain(t, &namewardv1.ExplainConnectionRequest{Workload: "uid:" + c.user, Destination: c.to.String(), Port: lab.ServicePort})
		if said := answer.GetVerdict() == namewardv1.Verdict_ALLOW; said != c.passes {
			t.Errorf("user %s to %s: explained as %v: %s", c.user, c.to, answer.GetVerdict(), answer.GetReason())
		}
	}
}
