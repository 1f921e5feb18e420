package traffic

import (
	"context"
	"errors"
	"fmt"
)

// What the nodes between client and world do, by the names that tables and plots have.
const (
	noRules      = "no rules"
	oneRule      = "one conntrack rule"
	emptyRules   = "our rules, empty programs"
	ours         = "Nameward"
	queueHeld    = "NFQUEUE, response held"
	queueFree    = "NFQUEUE, not held"
	dnsmasqIPSet = "dnsmasq --ipset"
	dnsmasqNFT   = "dnsmasq --nftset"
	proxy        = "DNS proxy"
	proxyOfNames = "DNS proxy, names of each address"
)

// setUp makes a way's node what its name says.
type setUp func(ctx context.Context, n *network, w *way) error

// setUps but for ours, which is the lab's own node.
func setUps() map[string]setUp {
	return map[string]setUp{
		noRules:      func(context.Context, *network, *way) error { return nil },
		oneRule:      setUpOneRule,
		emptyRules:   setUpEmptyRules,
		queueHeld:    func(ctx context.Context, n *network, w *way) error { return setUpQueue(ctx, n, w, "-hold") },
		queueFree:    func(ctx context.Context, n *network, w *way) error { return setUpQueue(ctx, n, w) },
		dnsmasqIPSet: setUpDnsmasqIPSet,
		dnsmasqNFT:   setUpDnsmasqNFT,
		proxy:        func(ctx context.Context, n *network, w *way) error { return setUpProxy(ctx, n, w) },
		proxyOfNames: func(ctx context.Context, n *network, w *way) error { return setUpProxy(ctx, n, w, "-names") },
	}
}

// newWays builds a network with ways of these names, of which ours is one: the rules of empty programs are
// read from it. patterns are what its policy has.
func newWays(ctx context.Context, programs string, patterns []string, names ...string) (_ *network, _ []*way, err error) {
	n, err := newNetwork(ctx, programs)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.Close())
		}
	}()
	mine, err := n.labWay()
	if err != nil {
		return nil, nil, err
	}
	mine.name = ours
	if err := setUpOurs(ctx, n, patterns); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", ours, err)
	}
	var ways []*way
	for i, name := range names {
		w := mine
		if name != ours {
			if w, err = n.addWay(ctx, i+1); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
			w.name = name
			if err := setUps()[name](ctx, n, w); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		if err := w.awaitAnswers(ctx, nil); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", name, err)
		}
		ways = append(ways, w)
	}
	return n, ways, nil
}
