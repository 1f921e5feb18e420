package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/nfnetlink_queue.h.
const (
	queuePacket  = 0
	queueVerdict = 1
	queueConfig  = 2

	queueAttrPacketHeader  = 1
	queueAttrVerdictHeader = 2
	queueAttrPayload       = 10

	queueConfigCommand   = 1
	queueConfigParams    = 2
	queueConfigMaxLength = 3

	queueCommandBind = 1
	queueCopyPacket  = 2
)

const (
	acceptPacket  = 1 // NF_ACCEPT
	packetMax     = 0xffff
	queueLength   = 16384
	receiveBuffer = 16 << 20
)

type queue struct {
	number uint16
	conn   *netlink.Conn
	opener *opener
}

// serveQueue lets go of packets that carry DNS responses, and opens their addresses: before, or just after.
func serveQueue(number uint16, hold bool, opener *opener) error {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open queue: %w", err)
	}
	defer conn.Close() //nolint:errcheck // the process ends
	q := &queue{number, conn, opener}
	if err := q.bind(); err != nil {
		return err
	}
	fmt.Println("ready")
	for {
		messages, err := conn.Receive()
		if err != nil {
			return fmt.Errorf("receive packets: %w", err)
		}
		for _, message := range messages {
			if message.Header.Type != unix.NFNL_SUBSYS_QUEUE<<8|queuePacket || len(message.Data) < 4 {
				continue
			}
			if err := q.handle(message.Data[4:], hold); err != nil {
				return err
			}
		}
	}
}

// bind takes the queue over, with whole packets. A burst that does not fit the socket costs its packets, as
// with every queue, and not the queue.
func (q *queue) bind() error {
	err := errors.Join(
		q.conn.SetReadBuffer(receiveBuffer),
		q.conn.SetOption(netlink.NoENOBUFS, true),
		q.configure(queueConfigCommand, []byte{queueCommandBind, 0, 0, 0}),
		q.configure(queueConfigParams, append(binary.BigEndian.AppendUint32(nil, packetMax), queueCopyPacket)),
		q.configure(queueConfigMaxLength, binary.BigEndian.AppendUint32(nil, queueLength)),
	)
	if err != nil {
		return fmt.Errorf("bind queue %d: %w", q.number, err)
	}
	return nil
}

func (q *queue) configure(attribute uint16, value []byte) error {
	data, err := encode(func(e *netlink.AttributeEncoder) { e.Bytes(attribute, value) })
	if err != nil {
		return err
	}
	_, err = q.conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_QUEUE<<8 | queueConfig,
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: append(netfilterHeader(unix.AF_UNSPEC, q.number), data...),
	})
	return err //nolint:wrapcheck // bind says what it did
}

func (q *queue) handle(attributes []byte, hold bool) error {
	id, packet, err := decodePacket(attributes)
	if err != nil {
		return err
	}
	message, readable := payloadOfUDP(packet)
	if !hold {
		if err := q.accept(id); err != nil {
			return err
		}
	}
	if readable {
		if err := q.opener.open(message); err != nil {
			fmt.Fprintln(os.Stderr, "baseline:", err)
		}
	}
	if hold {
		return q.accept(id)
	}
	return nil
}

func decodePacket(attributes []byte) (id uint32, packet []byte, err error) {
	decoder, err := netlink.NewAttributeDecoder(attributes)
	if err != nil {
		return 0, nil, fmt.Errorf("read packet: %w", err)
	}
	for decoder.Next() {
		switch decoder.Type() {
		case queueAttrPacketHeader:
			if header := decoder.Bytes(); len(header) >= 4 {
				id = binary.BigEndian.Uint32(header)
			}
		case queueAttrPayload:
			packet = decoder.Bytes()
		}
	}
	if err := decoder.Err(); err != nil {
		return 0, nil, fmt.Errorf("read packet: %w", err)
	}
	return id, packet, nil
}

func (q *queue) accept(id uint32) error {
	verdict := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, acceptPacket), id)
	data, err := encode(func(e *netlink.AttributeEncoder) { e.Bytes(queueAttrVerdictHeader, verdict) })
	if err != nil {
		return err
	}
	_, err = q.conn.Send(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_QUEUE<<8 | queueVerdict, Flags: netlink.Request},
		Data:   append(netfilterHeader(unix.AF_UNSPEC, q.number), data...),
	})
	if err != nil {
		return fmt.Errorf("give verdict: %w", err)
	}
	return nil
}

// payloadOfUDP is what an IPv4 packet carries over UDP.
func payloadOfUDP(packet []byte) ([]byte, bool) {
	const headerOfUDP = 8
	if len(packet) < 20 || packet[0]>>4 != 4 || packet[9] != unix.IPPROTO_UDP {
		return nil, false
	}
	start := int(packet[0]&0xf)*4 + headerOfUDP
	if len(packet) < start {
		return nil, false
	}
	return packet[start:], true
}
