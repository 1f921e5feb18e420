package path

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// forgetConnections empties the node's table of connections.
func forgetConnections() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	defer unix.Close(fd)                 //nolint:errcheck // nothing is buffered
	const deleteConnections = 2          // IPCTNL_MSG_CT_DELETE: of no one connection, so all
	const length = unix.NLMSG_HDRLEN + 4 // and struct nfgenmsg, all zero
	request := make([]byte, length)
	binary.NativeEndian.PutUint32(request, length)
	binary.NativeEndian.PutUint16(request[4:], unix.NFNL_SUBSYS_CTNETLINK<<8|deleteConnections)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	reply := make([]byte, 4096)
	size, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return fmt.Errorf("forget connections: %w", err)
	}
	if size < unix.NLMSG_HDRLEN+4 || binary.NativeEndian.Uint16(reply[4:]) != unix.NLMSG_ERROR {
		return errors.New("forget connections: unexpected answer")
	}
	if code := int32(binary.NativeEndian.Uint32(reply[unix.NLMSG_HDRLEN:])); code != 0 { //nolint:gosec // an errno
		return fmt.Errorf("forget connections: %w", unix.Errno(-code))
	}
	return nil
}
