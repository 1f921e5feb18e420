package subscribe

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	agentv1 "github.com/nameward/nameward/api/nameward/agent/v1"
)

// mover returns a subscriber of which only the order of servers counts: a:1, b:1 and c:1, the last at 192.0.2.3.
func mover(servers ...string) *Subscriber {
	s := New(Config{Hello: &agentv1.Hello{Node: "lab"}, Servers: servers}, nil, nil, nil)
	s.servers = servers
	s.resolver.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		return []netip.Addr{netip.MustParseAddr("192.0.2.3")}, nil
	}
	return s
}

// Servers that asked to be left alone come last, whoever names them, and of these the one that may be come to first.
func TestServersThatAreLeftAloneComeLast(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		held   map[string]time.Duration
		before string
		err    error
		want   move
	}{
		"the next is left out":                {map[string]time.Duration{"b:1": time.Second}, "a:1", errors.New("lost"), move{server: "c:1"}},
		"until its time is over":              {map[string]time.Duration{"b:1": 0}, "a:1", errors.New("lost"), move{server: "b:1"}},
		"the first that may be come to":       {map[string]time.Duration{"a:1": 2 * time.Second, "b:1": 3 * time.Second, "c:1": time.Second}, "a:1", errors.New("lost"), move{server: "c:1"}},
		"the one that refused, before others": {map[string]time.Duration{"a:1": time.Second, "b:1": 3 * time.Second, "c:1": 2 * time.Second}, "a:1", errors.New("lost"), move{server: "a:1"}},
		"not even where it is told":           {map[string]time.Duration{"b:1": time.Second}, "a:1", &drained{[]string{"b:1"}}, move{"c:1", true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mover("a:1", "b:1", "c:1")
			for server, held := range test.held {
				s.holds.hold(server, now.Add(held))
			}
			if got := s.after(move{server: test.before}, time.Hour, test.err, now); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestWhereANodeGoes(t *testing.T) {
	asked := func(servers ...string) error { return &drained{servers} }
	long := time.Hour
	for name, test := range map[string]struct {
		servers []string
		before  move
		lasted  time.Duration
		err     error
		want    move
	}{
		"to the next after a failure":           {[]string{"a:1", "b:1", "c:1"}, move{server: "b:1"}, 0, errors.New("lost"), move{server: "c:1"}},
		"to the first after the last":           {[]string{"a:1", "b:1", "c:1"}, move{server: "c:1"}, long, errors.New("lost"), move{server: "a:1"}},
		"home":                                  {[]string{"a:1", "b:1", "c:1"}, move{server: "c:1"}, long, errReturn, move{server: "a:1"}},
		"where it is told":                      {[]string{"a:1", "b:1", "c:1"}, move{server: "a:1"}, long, asked("c:1"), move{"c:1", true}},
		"where it is told, by address":          {[]string{"a:1", "b:1", "c:1"}, move{server: "a:1"}, long, asked("192.0.2.3:1"), move{"c:1", true}},
		"to another port, it is not":            {[]string{"a:1", "b:1", "c:1"}, move{server: "a:1"}, long, asked("192.0.2.3:2"), move{"b:1", true}},
		"home first, of those that are offered": {[]string{"a:1", "b:1", "c:1"}, move{server: "b:1"}, long, asked("c:1", "a:1"), move{"a:1", true}},
		"to the next where nothing is said":     {[]string{"a:1", "b:1", "c:1"}, move{server: "a:1"}, long, asked(), move{"b:1", true}},
		"to no server but its own":              {[]string{"a:1", "b:1"}, move{server: "a:1"}, long, asked("evil:1"), move{"b:1", true}},
		"nowhere else, where there is one":      {[]string{"a:1"}, move{server: "a:1"}, long, asked("b:1"), move{server: "a:1"}},
		"to one that asked, again and again":    {[]string{"a:1", "b:1"}, move{"a:1", true}, 0, asked("b:1"), move{server: "b:1"}},
		"to one that asked, after a while":      {[]string{"a:1", "b:1"}, move{"a:1", true}, long, asked("b:1"), move{"b:1", true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mover(test.servers...)
			if _, err := s.resolver.resolve(t.Context(), "c:1"); err != nil {
				t.Fatal(err)
			}
			if got := s.after(test.before, test.lasted, test.err, time.Now()); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}
