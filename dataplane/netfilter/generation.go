package netfilter

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// version says which rules there are. While it stands, so do the rules, and nothing has to be listed.
type version struct {
	generation uint32            // of nf_tables
	content    [sha256.Size]byte // of iptables-legacy, which counts no generations
}

func (n *Netfilter) readVersion() (v version, err error) {
	if n.backend == NFT {
		v.generation, err = nfGeneration()
	} else {
		v.content, err = legacyContent(n.families, func(*family) ([]string, error) { return []string{"mangle", "filter"}, nil })
	}
	return v, err
}

// readOthers returns the version of the other backend.
func (n *Netfilter) readOthers() (v version, err error) {
	if n.backend == Legacy {
		v.generation, err = nfGeneration()
	} else {
		v.content, err = legacyContent(n.families, existing)
	}
	return v, err
}

// existing returns the tables of iptables-legacy that there are and could hold rules of ours: to ask for another
// would make it.
func existing(f *family) ([]string, error) {
	names, err := f.tools.legacyTables()
	return slices.DeleteFunc(names, func(name string) bool { return name != "mangle" && name != "filter" }), err
}

// nfGeneration returns the number that nf_tables raises with each change of any rule in the network
// namespace.
func nfGeneration() (uint32, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("open netlink: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return 0, fmt.Errorf("set timeout: %w", err)
	}
	const header = unix.NLMSG_HDRLEN + 4 // and struct nfgenmsg, all zero
	request := make([]byte, header)
	binary.NativeEndian.PutUint32(request, header)
	binary.NativeEndian.PutUint16(request[4:], unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN)
	binary.NativeEndian.PutUint16(request[6:], unix.NLM_F_REQUEST)
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, fmt.Errorf("ask for the generation: %w", err)
	}
	reply := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return 0, fmt.Errorf("read the generation: %w", err)
	}
	if n < header || binary.NativeEndian.Uint16(reply[4:]) != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		return 0, errors.New("read the generation: unexpected answer")
	}
	for attributes := reply[header:n]; len(attributes) >= 8; {
		length := int(binary.NativeEndian.Uint16(attributes))
		if binary.NativeEndian.Uint16(attributes[2:]) == unix.NFTA_GEN_ID {
			return binary.BigEndian.Uint32(attributes[4:]), nil
		}
		attributes = attributes[min(max((length+3)&^3, 4), len(attributes)):]
	}
	return 0, errors.New("read the generation: it is not in the answer")
}
