package path

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bench/measure"
)

// A way is a node with one variant of the rules, and the packets that are sent through it.
type way struct {
	name    string
	node    *node
	packets packets
	sent    uint64 // out of out0
	packed  burst
}

// packets are what is sent next.
type packets interface {
	// pack fills a burst.
	pack(*burst)
	// socket is where bursts are sent.
	socket() int
	// fresh says that each packet begins a connection, which is forgotten after a sample.
	fresh() bool
}

// A sample is limited in time, since the slowest of ways takes milliseconds a packet.
const sampleTime = 60 * time.Millisecond

// newWay makes a node and has rules put there.
func newWay(ctx context.Context, name string, open func(*node) error) (*way, error) {
	n, err := newNode(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := open(n); err != nil {
		n.close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	w := &way{name: name, node: n}
	if w.sent, err = n.carried("out0"); err != nil {
		n.close()
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return w, nil
}

// burst sends some packets.
func (w *way) burst() (time.Duration, error) {
	w.packets.pack(&w.packed)
	took, err := w.packed.send(w.packets.socket())
	w.sent += burstPackets
	return took, err
}

// sample gives the median over some bursts of what measure finds of one, and makes sure that no packet was lost.
func (w *way) sample(ctx context.Context, bursts int, measure func() (float64, error)) (float64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var values []float64
	for start := time.Now(); len(values) < bursts && (len(values) == 0 || time.Since(start) < sampleTime); {
		value, err := measure()
		if err != nil {
			return 0, err
		}
		values = append(values, value)
	}
	if err := w.settle(); err != nil {
		return 0, err
	}
	slices.Sort(values)
	return values[len(values)/2], nil
}

// settle is between two samples.
func (w *way) settle() error {
	if err := w.node.await("out0", w.sent); err != nil {
		return err
	}
	if !w.packets.fresh() {
		return nil
	}
	return w.node.do(forgetConnections)
}

// wholePath is a variant whose samples are nanoseconds a packet, from the cable to the cable.
func (w *way) wholePath(bursts int) measure.Variant {
	return measure.Variant{Name: w.name, Sample: func(ctx context.Context) (float64, error) {
		return w.sample(ctx, bursts, func() (float64, error) {
			took, err := w.burst()
			return float64(took.Nanoseconds()) / burstPackets, err
		})
	}}
}

// inPath is a variant whose samples are nanoseconds a run of a program, by the kernel's own clock.
func (w *way) inPath(bursts int, pin string) (measure.Variant, error) {
	c, err := openClock(w.node, pin)
	return measure.Variant{Name: w.name, Sample: func(ctx context.Context) (float64, error) {
		return w.sample(ctx, bursts, func() (float64, error) {
			return c.during(func() error {
				_, err := w.burst()
				return err
			})
		})
	}}, err
}

func closeAll(ways []*way) {
	for _, w := range ways {
		w.node.close()
	}
}

// forwarded are first packets of TCP connections from clients behind the node.
type forwarded struct {
	node     *node
	from, to []netip.Addr
	next     int
}

// firstPort of the ports that connections are told apart by.
const firstPort, portCount = 1024, 64_000

func (p *forwarded) pack(b *burst) {
	for i := range burstPackets {
		k := p.next
		p.next++
		turn := k / max(len(p.from), len(p.to))
		port := uint16(firstPort + turn%portCount) //nolint:gosec // below 65,024
		f := flow{
			unix.IPPROTO_TCP,
			netip.AddrPortFrom(p.from[k%len(p.from)], port), netip.AddrPortFrom(p.to[k%len(p.to)], 443),
		}
		b.setFrame(i, toIn0, f, syn, 1, 0)
	}
}

func (p *forwarded) socket() int { return p.node.cable.source }
func (p *forwarded) fresh() bool { return true }

// local are first datagrams of a process of the node.
type local struct {
	fd   int
	to   []netip.Addr
	next int
}

func (p *local) pack(b *burst) {
	for i := range burstPackets {
		k := p.next
		p.next++
		port := uint16(firstPort + k/len(p.to)%portCount) //nolint:gosec // below 65,024
		b.setDatagram(i, netip.AddrPortFrom(p.to[k%len(p.to)], port))
	}
}

func (p *local) socket() int { return p.fd }
func (p *local) fresh() bool { return true }
