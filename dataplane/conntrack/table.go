package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Messages of the kernel's connection tracking.
const (
	messageNew    = unix.NFNL_SUBSYS_CTNETLINK << 8   // IPCTNL_MSG_CT_NEW, 0
	messageGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1 // IPCTNL_MSG_CT_GET
	messageDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2 // IPCTNL_MSG_CT_DELETE
)

const (
	// cutLabel is the bit of a connection's label that has each further packet of it judged.
	cutLabel = 126
	// deniedLabel is that by which a denial is carried to where packets are rejected.
	deniedLabel = 127
	// acceptedLabel says that a policy allowed the connection, and that it passes the node's other rules.
	acceptedLabel = 125
	// reopenedLabel says that the denial counts no more: the connection was opened anew on its ports, and allowed.
	reopenedLabel = 124

	labelBytes = 16
	listings   = 3 // how often a listing is begun anew that was interrupted
)

// kernelTable is the kernel's table of connections of the network namespace that it was opened in.
type kernelTable struct {
	socket *nl.NetlinkSocket
	shared map[int]*nl.SocketHandle

	sequence uint32 // of the next message of relabel
}

func openTable() (*kernelTable, error) {
	socket, err := nl.Subscribe(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &kernelTable{socket: socket, shared: map[int]*nl.SocketHandle{unix.NETLINK_NETFILTER: {Socket: socket}}}, nil
}

func (t *kernelTable) close() { t.socket.Close() }

// list calls f for each connection there is. The entry is good until f returns. Where the kernel was
// interrupted it begins anew, so that one may come twice.
func (t *kernelTable) list(f func(*entry)) (unread int, err error) {
	for range listings {
		request := nl.NewNetlinkRequest(messageGet, unix.NLM_F_DUMP)
		request.AddRawData(head(unix.AF_UNSPEC))
		err = request.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(message []byte) bool {
			e, err := parseEntry(message)
			if err != nil {
				unread++
				return true
			}
			f(&e)
			return true
		})
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if err != nil {
		return unread, fmt.Errorf("list connections: %w", err)
	}
	return unread, nil
}

// name is the attributes that say which connection is meant.
func (e *entry) name() []byte {
	b := append(head(e.family), e.originalRaw...)
	return append(b, e.zoneRaw...)
}

func (t *kernelTable) execute(kind, flags int, body []byte) error {
	request := nl.NewNetlinkRequest(kind, unix.NLM_F_ACK|flags)
	request.Sockets = t.shared
	request.AddRawData(body)
	_, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	return err //nolint:wrapcheck // the caller says what it did
}

// forget deletes a connection. It reports whether there was one.
func (t *kernelTable) forget(e *entry) (bool, error) {
	err := t.execute(messageDelete, 0, append(e.name(), e.idRaw...))
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	return err == nil, err
}

// cut has each further packet of a connection judged, given what became of its label. It reports whether the
// connection was still there.
func (t *kernelTable) cut(e *entry, labelled error) (bool, error) {
	err := labelled
	if errors.Is(err, unix.ENOSPC) || e.offloaded() {
		// Packets of one in a flow table pass no rule until that lets go of it, as of what is deleted. The label is for a
		// kernel that does not delete it before.
		err = t.replace(e)
		if labelled != nil && !errors.Is(labelled, unix.ENOSPC) {
			err = errors.Join(labelled, err)
		}
	}
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("cut connection: %w", err)
	}
	return true, nil
}

// replacements is how often a connection is made anew that a packet of the other side made before.
const replacements = 16

// replace deletes a connection, such as one that has no room for a label since it is older than the rules
// that ask for one. A connection that is not translated is made anew in the same breath, with a label: else a packet
// of the other side could come first, and the kernel would take it for a connection that was opened from
// there. A packet of the other side of one that is translated does not find its way back.
//
// One that is over is not made anew: what is made has not seen the end, and the kernel would let a new connection
// on the same ports pass as this one.
func (t *kernelTable) replace(e *entry) error {
	gone := t.execute(messageDelete, 0, append(e.name(), e.idRaw...))
	if gone != nil || e.translated() || e.master != nil || e.over() {
		return gone
	}
	var err error
	for range replacements {
		if err = t.execute(messageNew, unix.NLM_F_CREATE|unix.NLM_F_EXCL, e.anew()); !errors.Is(err, unix.EEXIST) {
			break
		}
		if err := t.execute(messageDelete, 0, e.name()); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return err
}

// anew is the attributes of a connection like this one, with the label.
func (e *entry) anew() []byte {
	b := head(e.family)
	for a := range attributes(e.raw) {
		switch a.kind {
		case attrOriginal, attrReply, attrTimeout, attrMark, attrZone:
			b = append(b, a.whole...)
		case attrProtoInfo:
			b = append(b, withFlags(a)...)
		}
	}
	status := e.status&^(statusExpected|statusOffload|statusHWOffload) | statusConfirmed
	b = appendAttribute(b, attrStatus, binary.BigEndian.AppendUint32(nil, status))
	labels := make([]byte, labelBytes)
	copy(labels, e.labels)
	for _, bit := range []int{deniedLabel, reopenedLabel} {
		labels[bit/8] &^= 1 << (bit % 8)
	}
	labels[cutLabel/8] |= 1 << (cutLabel % 8)
	return appendAttribute(b, attrLabels, labels)
}

// withFlags is what is known of a TCP connection, so that the kernel takes its flags over: that a side began to close
// it, above all. Without that a new connection on the same ports would pass as this one. The kernel tells the flags
// with none that counts.
func withFlags(info attribute) []byte {
	known := slices.Clone(info.whole)
	for tcp := range attributes(known[attrHeader:]) {
		for a := range attributes(tcp.value) {
			if (a.kind == attrTCPFlags || a.kind == attrTCPFlags+1) && len(a.value) == 2 {
				a.value[1] = 0xff
			}
		}
	}
	return known
}
