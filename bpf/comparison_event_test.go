package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
)

// learn records what an answer must have made known, and compares what the agent was told of it.
func (c *comparison) learn(r reading, before, after time.Duration, events [][]byte, client int) {
	lifetime := max(time.Duration(r.ttl)*time.Second, c.script.minTTL)
	lifetime = min(lifetime, c.script.maxTTL) + c.script.grace
	expires := window{ticksUp(before + lifetime), ticksUp(after + lifetime)}
	if told := c.compareEvent(r, expires, lifetime, events, client); told != nil {
		at := time.Duration(told.LearnedAtNs)
		if at < before || at > after || told.ExpiresAt != ticksUp(at+lifetime) {
			c.fault("event: learned at %v and expires at %d, want between %v and %v and %v later", at, told.ExpiresAt, before, after, lifetime)
		}
		expires = window{told.ExpiresAt, told.ExpiresAt}
	}
	for _, owner := range r.owners {
		if c.learned[owner.address] == nil {
			c.learned[owner.address] = map[use]window{}
		}
		known := c.learned[owner.address]
		for _, name := range r.chain[:owner.names] {
			for _, use := range c.uses(name) {
				known[use] = window{max(known[use].from, expires.from), max(known[use].to, expires.to)}
			}
		}
	}
}

func ticksUp(d time.Duration) uint64 {
	return bpftest.Ticks(d + 1<<bpf.DatapathMappingLimitMAPPING_TICK_SHIFT - 1)
}

// compareEvent compares what the agent was told of an answer; nil if nothing, which may be right.
func (c *comparison) compareEvent(r reading, expires window, lifetime time.Duration, events [][]byte, client int) *bpf.DatapathAnswerEvent {
	content := r.content()
	questionType := binary.BigEndian.Uint16([]byte(r.question[len(r.question)-4:]))
	told := c.told[r.question]
	may, must := true, true // be told
	if told != nil && told.content == content {
		leeway := uint64(1)
		if questionType == 1 || questionType == 28 {
			leeway = ticksUp(lifetime) / 2
		}
		may, must = expires.to >= told.reported.from+leeway, expires.from >= told.reported.to+leeway
	}
	if len(events) > 1 || len(events) == 0 && must || len(events) == 1 && !may {
		c.fault("%d events; may be told: %v, must be: %v", len(events), may, must)
	}
	if len(events) == 0 {
		return nil
	}
	event, got := c.parseEvent(events[0])
	if got != content {
		c.fault("event (-want +got):\n%s", cmp.Diff(fmt.Sprintf("%x", content), fmt.Sprintf("%x", got)))
	}
	learning := uint32(1)<<c.script.active | uint32(1)<<c.script.learning
	address := bpftest.Addr(c.transport.clients()[client].Addr())
	if event.Learning != learning || event.Client != address || event.QuestionType != questionType {
		c.fault("event %+v: want generations %d, client %v, type %d", event, learning, address, questionType)
	}
	c.told[r.question] = &telling{content, window{event.ExpiresAt, event.ExpiresAt}}
	return &event
}

// content is what an event says of names and addresses. Their order in the message does not count.
func (r reading) content() string {
	var owners []string
	for _, o := range r.owners {
		address := o.address.As16()
		owners = append(owners, string(address[:])+string(rune('A'+o.names)))
	}
	slices.Sort(owners)
	return fmt.Sprint(r.chain, owners)
}

func (c *comparison) parseEvent(sample []byte) (event bpf.DatapathAnswerEvent, content string) {
	reader := bytes.NewReader(sample)
	fault := binary.Read(reader, binary.LittleEndian, &event)
	owners := make([]bpf.DatapathAnswerAddress, event.Addresses)
	fault = errors.Join(fault, binary.Read(reader, binary.LittleEndian, owners))
	names := make([]byte, event.NamesBytes)
	_, err := reader.Read(names)
	if fault = errors.Join(fault, err); fault != nil || event.Type != bpf.DatapathEventTypeEVENT_ANSWER || reader.Len() >= 8 || len(sample)%8 != 0 {
		c.fault("event %x: %v", sample, fault)
		return event, ""
	}
	var r reading
	for _, o := range owners {
		r.owners = append(r.owners, owner{netip.AddrFrom16(o.Address.Bytes).Unmap(), int(o.Names)})
	}
	for range event.Names {
		end := 0
		for names[end] != 0 {
			end += 1 + int(names[end])
		}
		r.chain = append(r.chain, string(names[:end+1]))
		names = names[end+1:]
	}
	if len(names) != 0 {
		c.fault("event %x: %d bytes behind the names", sample, len(names))
	}
	return event, r.content()
}
