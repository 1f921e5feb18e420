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

// Answers gives the answers that are in the ring buffer, and empties it.
func (d *Datapath) Answers() []Answer {
	d.t.Helper()
	answers, _ := d.ReadEvents()
	return answers
}

// Flows gives the flow events that are in the ring buffer, and empties it.
func (d *Datapath) Flows() []bpf.DatapathFlowEvent {
	d.t.Helper()
	_, flows := d.ReadEvents()
	return flows
}

// ReadEvents gives what is in the ring buffer, and empties it.
func (d *Datapath) ReadEvents() (answers []Answer, flows []bpf.DatapathFlowEvent) {
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
		var flow bpf.DatapathFlowEvent
		d.read(bytes.NewReader(record.RawSample), &flow)
		flows = append(flows, flow)
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
		var labels []string
		for names[0] != 0 {
			labels = append(labels, string(names[1:1+names[0]]))
			names = names[1+names[0]:]
		}
		names = names[1:]
		answer.Chain = append(answer.Chain, strings.Join(labels, "."))
	}
	if len(names) != 0 || reader.Len() >= 8 || len(raw)%8 != 0 {
		d.t.Fatalf("event of %d bytes: %d bytes behind the names, %d behind all", len(raw), len(names), reader.Len())
	}
	return answer
}

func (d *Datapath) read(reader *bytes.Reader, into any) {
	d.t.Helper()
	if err := binary.Read(reader, binary.LittleEndian, into); err != nil {
		d.t.Fatalf("read an event: %v", err)
	}
}
