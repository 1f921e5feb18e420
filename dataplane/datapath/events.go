package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/dataplane/observe"
)

// learned is an answer with the generations that the kernel learned it for.
type learned struct {
	observe.Answer
	generations uint32 // bit 0, bit 1
}

// place is by whose programs something was learned.
type place bool

const (
	learnedHere      place = false
	learnedElsewhere place = true
)

// eventBatch is how many events are written to the journal at once.
const eventBatch = 256

// drain takes in the events that are there when it begins, not those that come meanwhile: those may
// never end. An event leaves the ring buffer when it is written down, and only then it counts: if the
// process is killed before, the next one reads it again; a flow is counted by one of them at most.
func (d *Datapath) drain() error {
	if err := d.drainRing(d.events, learnedHere); err != nil {
		return err
	}
	return d.dropOverdue()
}

// drainRing takes in the events of a ring buffer. Answers that programs of another layout learned opened no
// door here.
func (d *Datapath) drainRing(events *ring, where place) error {
	end := events.next + uint64(events.available()) //nolint:gosec // not negative
	for events.next < end {
		clock, err := readClock()
		if err != nil {
			return err
		}
		answers, flows := d.readBatch(events, end, clock)
		d.writeDown(answers, clock)
		events.release()
		if where == learnedElsewhere {
			for i := range answers {
				answers[i].generations = 0
			}
		}
		if err := d.take(answers, clock); err != nil {
			return err
		}
		// Behind the answers, which say the names of where they go.
		for i := range flows {
			if where == learnedElsewhere && d.toldTwice(&flows[i]) {
				continue
			}
			d.takeFlow(&flows[i])
		}
	}
	return nil
}

// readBatch reads up to a batch of events, of those that begin before a position.
func (d *Datapath) readBatch(events *ring, end uint64, c clock) (answers []learned, flows []stopped) {
	for len(answers)+len(flows) < eventBatch && events.next < end {
		raw := events.read()
		if raw == nil {
			break
		}
		var err error
		if eventType(raw) == bpf.DatapathEventTypeEVENT_FLOW {
			var flow stopped
			if flow, err = decodeFlow(raw, c); err == nil {
				flows = append(flows, flow)
			}
		} else {
			var answer learned
			if answer, err = decodeAnswer(raw, c, events.tickShift); err == nil {
				answers = append(answers, answer)
			}
		}
		if err != nil {
			d.log.Warn("event is not readable", "err", err)
		}
	}
	return answers, flows
}

// writeDown keeps answers for the next process.
func (d *Datapath) writeDown(answers []learned, c clock) {
	if len(answers) == 0 {
		return
	}
	// The kernel enforces without it; only a restart would know less. The journal says so, and is mended.
	_ = d.journal.put(answers, c)
}

// take hands answers on, and opens the doors that the kernel did not open itself.
func (d *Datapath) take(answers []learned, c clock) error {
	if len(answers) == 0 {
		return nil
	}
	doors := map[door]uint64{}
	for _, a := range answers {
		d.overdue = append(d.overdue, d.table.Record(a.Answer)...)
		d.flows.Saw(a.Answer)
		for _, address := range a.Addresses {
			if a.generations&(1<<d.active) != 0 && !d.takenSince(address.Address, a) {
				continue
			}
			for _, name := range a.Names[:address.Names] {
				d.openDoor(doors, name, address.Address, c.toTicks(a.ExpiresAt))
			}
		}
	}
	return d.remap(doors)
}

func (d *Datapath) openDoor(doors map[door]uint64, name domain.Name, a netip.Addr, expiry uint64) {
	for _, set := range d.names.matchSets(name, d.active) {
		doors[door{a, set}] = max(doors[door{a, set}], expiry)
	}
}

// eventType reads what every event begins with.
func eventType(raw []byte) bpf.DatapathEventType {
	if len(raw) < 4 {
		return 0
	}
	return bpf.DatapathEventType(binary.LittleEndian.Uint32(raw))
}

var errShortEvent = errors.New("event is cut short")

// decodeAnswer reads struct answer_event and what comes behind it. Whose ticks are not this build's says how
// long they are.
func decodeAnswer(raw []byte, c clock, tickShift int) (learned, error) {
	const eventBytes, addressBytes = int(unsafe.Sizeof(bpf.DatapathAnswerEvent{})), int(unsafe.Sizeof(bpf.DatapathAnswerAddress{}))
	if len(raw) < eventBytes {
		return learned{}, errShortEvent
	}
	e := (*bpf.DatapathAnswerEvent)(unsafe.Pointer(&raw[0])) //nolint:gosec // records are aligned, and laid out by the same compiler's rules
	if e.Type != bpf.DatapathEventTypeEVENT_ANSWER {
		return learned{}, fmt.Errorf("event of unknown type %d", e.Type)
	}
	tail := raw[eventBytes:]
	count := int(e.Addresses)
	if count*addressBytes+int(e.NamesBytes) > len(tail) {
		return learned{}, errShortEvent
	}
	a := learned{generations: e.Learning}
	a.Client = netip.AddrFrom16(e.Client.Bytes).Unmap()
	a.Question = e.QuestionType
	a.LearnedAt = c.fromBoot(e.LearnedAtNs)
	a.ExpiresAt = c.fromBoot(e.ExpiresAt << tickShift)
	var err error
	if a.Names, err = decodeNames(tail[count*addressBytes:count*addressBytes+int(e.NamesBytes)], int(e.Names)); err != nil || count == 0 {
		return a, err
	}
	records := unsafe.Slice((*bpf.DatapathAnswerAddress)(unsafe.Pointer(&tail[0])), count) //nolint:gosec // as above
	a.Addresses = make([]observe.Address, count)
	for i := range records {
		a.Addresses[i] = observe.Address{
			Address: netip.AddrFrom16(records[i].Address.Bytes).Unmap(),
			Names:   min(max(int(records[i].Names), 1), len(a.Names)),
		}
	}
	return a, nil
}

func decodeNames(wire []byte, count int) ([]domain.Name, error) {
	names := make([]domain.Name, 0, count)
	for range count {
		end := nameEnd(wire)
		if end == 0 {
			return nil, errShortEvent
		}
		name, err := domain.FromWire(wire[:end])
		if err != nil {
			return nil, fmt.Errorf("read name of event: %w", err)
		}
		names = append(names, name)
		wire = wire[end:]
	}
	if len(names) == 0 {
		return nil, errShortEvent
	}
	return names, nil
}

// nameEnd is the length of the first name in wire form; 0 when it is cut short.
func nameEnd(wire []byte) int {
	for at := 0; at < len(wire); at += 1 + int(wire[at]) {
		if wire[at] == 0 {
			return at + 1
		}
	}
	return 0
}
