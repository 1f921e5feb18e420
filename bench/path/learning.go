package path

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/nameward/nameward/dataplane/netfilter"
)

// A learning is a conversation through a node on which the agent's datapath runs, and learns from the answers.
type learning struct {
	*conversation
	state string // directory of its files, which the threads of the datapath see
	agent *errgroup.Group
}

// converseLearning makes a node and has the datapath run that enforce puts there, until the end.
func converseLearning(ctx context.Context, asked []string, enforce func(n *node, state string) (*enforcement, func(int) error, error)) (*learning, error) {
	state, err := os.MkdirTemp("", "nameward-bench-")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	agent, running := errgroup.WithContext(ctx)
	c, err := converse(ctx, ours, asked, func(n *node) (netfilter.Programs, func(int) error, error) {
		e, check, err := enforce(n, state)
		if err != nil {
			return netfilter.Programs{}, nil, err
		}
		agent.Go(func() error { return e.datapath.Run(running) })
		// The datapath is closed with the node, which what runs must not outlive.
		n.atEnd(func() {
			cancel()
			_ = agent.Wait() // end tells
		})
		return e.programs, check, nil
	})
	if err != nil {
		cancel()
		return nil, errors.Join(err, agent.Wait(), os.RemoveAll(state))
	}
	return &learning{conversation: c, state: state, agent: agent}, nil
}

// end ends the node, and says what ended the datapath before.
func (l *learning) end() error {
	l.node.close()
	return errors.Join(l.agent.Wait(), os.RemoveAll(l.state))
}

// learn puts a policy of many names in force, with its files in a directory that the agent's other threads see.
func learn(ctx context.Context, n *node, known []string, state string) (*enforcement, error) {
	return learnBy(ctx, n, known, state, func(*netfilter.Programs) error { return nil })
}

// learnBy is learn, by programs of which the rules are to call others.
func learnBy(ctx context.Context, n *node, known []string, state string, change func(*netfilter.Programs) error) (*enforcement, error) {
	rules, err := allowNames(known)
	if err != nil {
		return nil, err
	}
	var e *enforcement
	if err := n.do(func() (err error) {
		e, err = openDatapath(filepath.Join(bpfDir, "nameward"), state)
		return err
	}); err != nil {
		return nil, err
	}
	n.atEnd(func() { _ = e.datapath.Close() })
	if err := n.do(func() error {
		return errors.Join(
			e.datapath.SetEndpoints(resolvers, []netip.AddrPort{}), e.datapath.Apply(ctx, rules), change(&e.programs),
		)
	}); err != nil {
		return nil, err
	}
	return e, hook(ctx, n, netfilter.NFT, e.programs)
}

// learned makes sure that each answer was learned.
func (e *enforcement) learned() func(exchanges int) error {
	var before uint64
	return func(exchanges int) error {
		counters, err := e.datapath.Counters()
		if err != nil {
			return err
		}
		now := counters["dns_responses_learned"]
		if now-before != uint64(exchanges) { //nolint:gosec // a few thousand
			return fmt.Errorf("%d of %d answers were learned: %v", now-before, exchanges, counters)
		}
		before = now
		return nil
	}
}
