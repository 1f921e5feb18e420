package e2e_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/e2e/lab"
)

// rebootWithoutServer kills both programs, reboots the node, and starts the agent alone.
func (f *fleet) rebootWithoutServer(t *testing.T, damage ...func(stateDir string) error) {
	t.Helper()
	f.must(errors.Join(f.server.Kill(), f.agent.Kill(), f.Reboot(t.Context())))
	for _, damage := range damage {
		f.must(damage(filepath.Join(f.Dir, "agent")))
	}
	agent, err := f.StartAgentAlone(t.Context(), f.agentFlags...)
	f.must(err)
	f.agent = agent
}

// TestReboot: all kernel state gone, disk kept, no server: the last rule set is in force, and what was
// resolved before the reboot is open as long as it lives, without being asked for again.
func TestReboot(t *testing.T) {
	forEachBackend(t, func(t *testing.T, backend string) {
		f := newFleet(t, "--iptables", backend)
		f.put(clientPolicy("*.fresh.example", "api.example"))
		forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
			f.expectOpen(t, resolver, "api.example")
			f.expectRefused(t, resolver, "evil.example")
		})
		f.awaitMapping("api.example")
		for range 2 { // the second journal has times of before its boot
			f.rebootWithoutServer(t)
			f.expectStillOpen(t, f.opened(t, "api.example"))
			for _, address := range f.opened(t, "evil.example") {
				if err := f.Connect(address, lab.ServicePort); !lab.Refused(err) {
					t.Errorf("connect to %s, which no policy allows: got %v, want refused", address, err)
				}
			}
			forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
				f.expectOpen(t, resolver, lab.FreshName(2))
				f.expectRefused(t, resolver, "evil.example")
			})
			f.startServer()
			f.awaitCurrent()
		}
		for _, name := range []string{"api.example", "evil.example", lab.FreshName(2)} {
			f.awaitMapping(name)
		}
		// A policy of after the reboot applies to names of before.
		f.put(clientPolicy("evil.example"))
		f.expectStillOpen(t, f.opened(t, "evil.example"))
	})
}

// TestRebootWithDamagedState: whatever a loss of power left of the files, the agent starts, uses none by
// half, says what it set aside, and the server puts it right.
func TestRebootWithDamagedState(t *testing.T) {
	f := newFleet(t)
	f.put(clientPolicy("*.fresh.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, lab.FreshName(1)) })
	const inUse = 8192 // bytes: what is cut off a file of which the rest was never used is no damage
	cut := func(name string) func(string) error {
		return func(dir string) error {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				return err
			}
			return os.Truncate(filepath.Join(dir, name), min(info.Size()/2, inUse))
		}
	}
	instead := func(name string, content []byte) func(string) error {
		return func(dir string) error {
			path := filepath.Join(dir, name)
			if content == nil {
				return errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Join(path, "full"), 0o700))
			}
			return errors.Join(os.RemoveAll(path), os.WriteFile(path, content, 0o600))
		}
	}
	for _, test := range []struct {
		fact   string
		damage []func(string) error
	}{
		{"cut", []func(string) error{cut("rule-set"), cut("mappings.db"), instead("rule-set.before.1", []byte("half")), instead("rule-set.new", []byte("half"))}},
		{"empty", []func(string) error{instead("rule-set", []byte{}), instead("mappings.db", []byte{}), instead("rule-set.before.1", []byte{})}},
		{"directories", []func(string) error{instead("rule-set", nil), instead("mappings.db", nil), instead("rule-set.before.1", nil), instead("rule-set.new", nil)}},
	} {
		t.Run(test.fact, func(t *testing.T) {
			f.rebootWithoutServer(t, test.damage...)
			forEachFamily(t, func(t *testing.T, resolver netip.Addr) { f.expectOpen(t, resolver, "evil.example") })
			if state := f.agentState(t); !strings.Contains(fmt.Sprint(state.GetDegraded()), "the rule set on disk") {
				t.Errorf("degraded: %q, want the loss of the rule set", state.GetDegraded())
			}
			for _, name := range []string{"rule-set.bad", "mappings.db.corrupt"} {
				if _, err := os.Lstat(filepath.Join(f.Dir, "agent", name)); err != nil {
					t.Errorf("not set aside: %v", err)
				}
				if !strings.Contains(f.agent.ReadLog(), name) {
					t.Errorf("the log does not say that %s was set aside", name)
				}
			}
			f.startServer()
			f.awaitCurrent()
			forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
				f.expectOpen(t, resolver, lab.FreshName(3))
				f.expectRefused(t, resolver, "evil.example")
			})
			if state := f.agentState(t); len(state.GetDegraded()) > 0 {
				t.Errorf("still degraded: %q", state.GetDegraded())
			}
		})
	}
}

// TestBeforeTheFirstRuleSet: with --before-first-rule-set DENY a node without a rule set reaches nothing
// until the server has been heard.
func TestBeforeTheFirstRuleSet(t *testing.T) {
	f := newFleet(t, "--before-first-rule-set", "DENY")
	f.put(clientPolicy("*.fresh.example"))
	f.rebootWithoutServer(t, os.RemoveAll)
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectRefused(t, resolver, lab.FreshName(1))
		f.expectRefused(t, resolver, "evil.example")
	})
	f.startServer()
	f.awaitCurrent()
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, lab.FreshName(1))
		f.expectRefused(t, resolver, "evil.example")
	})
}

// agentState returns what the agent says of itself.
func (f *fleet) agentState(t *testing.T) *agentv1.GetStatusResponse {
	t.Helper()
	conn, err := f.DialAgent()
	f.must(err)
	defer conn.Close() //nolint:errcheck // asked once
	state, err := agentv1.NewLocalServiceClient(conn).GetStatus(t.Context(), &agentv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	state.Degraded = slices.DeleteFunc(state.GetDegraded(), func(fault string) bool { return strings.HasPrefix(fault, "not connected") })
	return state
}

// TestStateOnAFullDisk: without room for its state a node enforces and learns all the same, says so, and has
// everything on disk once there is room.
func TestStateOnAFullDisk(t *testing.T) {
	f := newFleet(t)
	f.must(f.agent.Stop())
	dir := filepath.Join(f.Dir, "agent")
	f.must(unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"))
	defer unix.Unmount(dir, unix.MNT_DETACH) //nolint:errcheck // the lab goes with it
	f.startAgent()
	fill, err := os.Create(filepath.Join(dir, "fill"))
	f.must(err)
	for page := make([]byte, os.Getpagesize()); err == nil; {
		_, err = fill.Write(page)
	}
	f.must(fill.Close())

	f.put(clientPolicy("*.fresh.example", "api.example"))
	forEachFamily(t, func(t *testing.T, resolver netip.Addr) {
		f.expectOpen(t, resolver, "api.example")
		for i := range 60 { // more than the journal has pages for
			f.expectOpen(t, resolver, lab.FreshName(i))
		}
		f.expectRefused(t, resolver, "evil.example")
	})
	node := func() []string {
		node, err := namewardv1.NewNodeServiceClient(f.conn).GetNode(t.Context(), &namewardv1.GetNodeRequest{Name: "nodes/" + lab.NodeName})
		f.must(err)
		return node.GetStatus().GetDegraded()
	}
	f.must(lab.Await(t.Context(), func() error {
		for _, fault := range []string{"save rule set", "write journal"} {
			if degraded := fmt.Sprint(node()); !strings.Contains(degraded, fault) {
				return fmt.Errorf("degraded: %s, want %s too", degraded, fault)
			}
		}
		return nil
	}, nil))

	f.must(os.Remove(fill.Name()))
	f.must(lab.Await(t.Context(), func() error {
		if degraded := node(); len(degraded) > 0 {
			return fmt.Errorf("still degraded: %v", degraded)
		}
		return nil
	}, nil))
	f.rebootWithoutServer(t)
	f.expectStillOpen(t, f.opened(t, "api.example"))
	for i := range 60 {
		f.expectStillOpen(t, f.opened(t, lab.FreshName(i)))
	}
}
