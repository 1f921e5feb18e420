package bpftest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/nameward/nameward/bpf"
)

// Answer is an answer_event with its tail taken apart.
type Answer struct {
	bpf.DatapathAnswerEvent
	Owners []Owner
	Chain  []string // names in the form of zone files, without the final dot
}

// Owner is an address and how many names of the chain own it.
type Owner struct {
	Address netip.Addr
	Names   uint32
}

// Flow is a flow_event with the name behind it, if there is one.
type Flow struct {
	bpf.DatapathFlowEvent
	Question string // in the form of zone files, without the final dot
}

// Answers gives the answers that are in the ring buffer, and empties it.
func (d *Datapath) Answers() []Answer {
	d.t.Helper()
	answers, _ := d.ReadEvents()
	return answers
}

// Flows gives the flow events that are in the ring buffer, and empties it.
func (d *Datapath) Flows() []Flow {
	d.t.Helper()
	_, flows := d.ReadEvents()
	return flows
}

// ReadEvents gives what is in the ring buffer, and empties it.
func (d *Datapath) ReadEvents() (answers []Answer, flows []Flow) {
	d.t.Helper()
	d.events.SetDeadline(time.Unix(1, 0)) // in the past: what is there, and no waiting
	for {
		record, err := d.events.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return answers, flows
		}
		if err != nil {
			d.t.Fatalf("read the ring buffer: %v", err)
		}
		if bpf.DatapathEventType(binary.LittleEndian.Uint32(record.RawSample)) == bpf.DatapathEventTypeEVENT_ANSWER {
			answers = append(answers, d.parseAnswer(record.RawSample))
			continue
		}
		flows = append(flows, d.parseFlow(record.RawSample))
	}
}

// RawEvents gives what is in the ring buffer as it is there, and empties it.
func (d *Datapath) RawEvents() (samples [][]byte) {
	d.t.Helper()
	for d.events.AvailableBytes() > 0 {
		record, err := d.events.Read()
		if err != nil {
			d.t.Fatalf("read the ring buffer: %v", err)
		}
		samples = append(samples, record.RawSample)
	}
	return samples
}

// WaitAnswer waits for the next event.
func (d *Datapath) WaitAnswer() Answer {
	d.t.Helper()
	d.events.SetDeadline(time.Now().Add(10 * time.Second))
	record, err := d.events.Read()
	if err != nil {
		d.t.Fatalf("read the ring buffer: %v", err)
	}
	return d.parseAnswer(record.RawSample)
}

func (d *Datapath) parseAnswer(raw []byte) Answer {
	d.t.Helper()
	var answer Answer
	reader := bytes.NewReader(raw)
	d.read(reader, &answer.DatapathAnswerEvent)
	for range answer.Addresses {
		var owner bpf.DatapathAnswerAddress
		d.read(reader, &owner)
		address := netip.AddrFrom16(owner.Address.Bytes).Unmap()
		answer.Owners = append(answer.Owners, Owner{address, owner.Names})
	}
	names := make([]byte, answer.NamesBytes)
	d.read(reader, names)
	for range answer.Names {
		var name string
		name, names = cutName(names)
		answer.Chain = append(answer.Chain, name)
	}
	if len(names) != 0 || reader.Len() >= 8 || len(raw)%8 != 0 {
		d.t.Fatalf("event of %d bytes: %d bytes behind the names, %d behind all", len(raw), len(names), reader.Len())
	}
	return answer
}

func (d *Datapath) parseFlow(raw []byte) Flow {
	d.t.Helper()
	var flow Flow
	reader := bytes.NewReader(raw)
	d.read(reader, &flow.DatapathFlowEvent)
	if flow.NameBytes > 0 {
		name := make([]byte, flow.NameBytes)
		d.read(reader, name)
		var rest []byte
		if flow.Question, rest = cutName(name); len(rest) != 0 {
			d.t.Fatalf("flow event with %d bytes behind the name", len(rest))
		}
	}
	if reader.Len() >= 8 || len(raw)%8 != 0 {
		d.t.Fatalf("flow event of %d bytes: %d behind all", len(raw), reader.Len())
	}
	return flow
}

// cutName reads a name in wire form, and gives what is behind it.
func cutName(wire []byte) (name string, rest []byte) {
	var labels []string
	for wire[0] != 0 {
		labels = append(labels, string(wire[1:1+wire[0]]))
		wire = wire[1+wire[0]:]
	}
	return strings.Join(labels, "."), wire[1:]
}

func (d *Datapath) read(reader *bytes.Reader, into any) {
	d.t.Helper()
	if err := binary.Read(reader, binary.LittleEndian, into); err != nil {
		d.t.Fatalf("read an event: %v", err)
	}
}
