package path

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/bench/measure"
)

// exchanges are questions of a client and their answers, one after the other. Each name has an address.
type exchanges struct {
	questions, answers [][]byte // frames; port and id are written into them
	connections        [][]byte // to the address, once it was answered; none: nobody connects
	next               int
}

const (
	// idAt is where the id of a message is in its frame.
	idAt        = etherBytes + ipv4Bytes + udpBytes
	sourceAt    = etherBytes + ipv4Bytes
	answerTTL   = 300
	messageRoom = 1024
)

// newExchanges makes questions for names, and an answer with an address of its own to each.
func newExchanges(names []string) (*exchanges, error) {
	x := &exchanges{}
	address := services.Addr()
	resolver, client := resolvers[0], netip.AddrPortFrom(clients.Addr().Next(), firstPort)
	for _, name := range names {
		address = address.Next()
		question, answer, err := messages(name, address)
		if err != nil {
			return nil, err
		}
		f := flow{unix.IPPROTO_UDP, client, resolver}
		x.questions = append(x.questions, datagram(toIn0, f, question))
		x.answers = append(x.answers, datagram(toOut0, f.reverse(), answer))
	}
	return x, nil
}

// messages are a question for the address of a name, and the answer.
func messages(text string, address netip.Addr) (question, answer []byte, err error) {
	name, err := dnsmessage.NewName(text + ".")
	if err != nil {
		return nil, nil, fmt.Errorf("ask for %s: %w", text, err)
	}
	asked := dnsmessage.Question{Name: name, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}
	m := dnsmessage.Message{Header: dnsmessage.Header{RecursionDesired: true}, Questions: []dnsmessage.Question{asked}}
	if question, err = m.Pack(); err != nil {
		return nil, nil, fmt.Errorf("ask for %s: %w", text, err)
	}
	m.Response, m.RecursionAvailable = true, true
	m.Answers = []dnsmessage.Resource{{
		Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: answerTTL},
		Body:   &dnsmessage.AResource{A: address.As4()},
	}}
	if answer, err = m.Pack(); err != nil {
		return nil, nil, fmt.Errorf("answer for %s: %w", text, err)
	}
	return question, answer, nil
}

// datagram is a frame with a payload.
func datagram(device byte, f flow, payload []byte) []byte {
	frame := append(writeFrame(make([]byte, frameBytes, messageRoom), device, f, 0, 0, 0), payload...)
	ip := frame[etherBytes:]
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip))) //nolint:gosec // below messageRoom
	binary.BigEndian.PutUint16(ip[10:], 0)
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip[:ipv4Bytes]))
	binary.BigEndian.PutUint16(ip[ipv4Bytes+4:], uint16(udpBytes+len(payload))) //nolint:gosec // below messageRoom
	return frame
}

// exchange sends the next question from a port and id of its own, and then its answer.
func (x *exchanges) exchange(n *node) error {
	i, turn := x.next%len(x.questions), x.next
	x.next++
	question, answer := x.questions[i], x.answers[i]
	port := uint16(firstPort + turn%portCount)                //nolint:gosec // below 65,024
	binary.BigEndian.PutUint16(question[sourceAt:], port)     // of the client
	binary.BigEndian.PutUint16(answer[sourceAt+2:], port)     // the same, as a destination
	binary.BigEndian.PutUint16(question[idAt:], uint16(turn)) //nolint:gosec // any will do
	binary.BigEndian.PutUint16(answer[idAt:], uint16(turn))   //nolint:gosec // the same
	if _, err := unix.Write(n.cable.source, question); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	if _, err := unix.Write(n.cable.sink, answer); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	if x.connections == nil {
		return nil
	}
	connection := x.connections[i]
	binary.BigEndian.PutUint16(connection[sourceAt:], port)
	if _, err := unix.Write(n.cable.source, connection); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	return nil
}

// connect has the client send a datagram to each address that it asked for.
func (x *exchanges) connect() {
	address, client := services.Addr(), netip.AddrPortFrom(clients.Addr().Next(), firstPort)
	for range x.questions {
		address = address.Next()
		f := flow{unix.IPPROTO_UDP, client, netip.AddrPortFrom(address, 443)}
		x.connections = append(x.connections, datagram(toIn0, f, nil))
	}
}

// A conversation is a node through which questions are asked, and programs of it that are watched.
type conversation struct {
	name   string
	node   *node
	asked  *exchanges
	clocks []clock
	times  [][]float64 // by clock: what it told of each sample
	check  func(exchanges int) error
}

// exchangesInBurst is over how many exchanges a program's time is averaged.
const exchangesInBurst = 20

// sample asks so many questions, and keeps the median time of each program over bursts of exchanges.
func (c *conversation) sample(ctx context.Context, questions int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	passed, err := c.node.carried("in0")
	if err != nil {
		return err
	}
	values := make([][]float64, len(c.clocks))
	for range questions / exchangesInBurst {
		if err := c.burst(values); err != nil {
			return err
		}
	}
	asked := questions / exchangesInBurst * exchangesInBurst
	if err := c.node.await("in0", passed+uint64(asked)); err != nil { //nolint:gosec // a few thousand
		return err
	}
	for i, v := range values {
		slices.Sort(v)
		c.times[i] = append(c.times[i], v[len(v)/2])
	}
	if err := c.check(asked); err != nil {
		return err
	}
	return c.node.do(forgetConnections)
}

// burst adds one value to those of each clock.
func (c *conversation) burst(values [][]float64) error {
	measured := func() error {
		for range exchangesInBurst {
			if err := c.asked.exchange(c.node); err != nil {
				return err
			}
		}
		return nil
	}
	for i, watched := range c.clocks {
		inner := measured
		measured = func() error {
			value, err := watched.during(inner)
			values[i] = append(values[i], value)
			return err
		}
	}
	return measured()
}

// again is a variant that asks for the same names once more. Its samples are of the first clock.
func (c *conversation) again(questions int) measure.Variant {
	return measure.Variant{Name: c.name, Sample: func(ctx context.Context) (float64, error) {
		if err := c.sample(ctx, questions); err != nil {
			return 0, err
		}
		return c.times[0][len(c.times[0])-1], nil
	}}
}

// first is what a clock told when the names were asked for the first time.
func (c *conversation) first(clock int) float64 { return c.times[clock][0] }

// later is what it told after that, but for the round that warms up.
func (c *conversation) later(clock int) measure.Series {
	return measure.Series{Name: c.name, Values: c.times[clock][2:]}
}
