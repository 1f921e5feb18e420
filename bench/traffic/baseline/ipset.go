package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Of linux/netfilter/ipset/ip_set.h.
const (
	ipsetProtocol = 6
	ipsetAdd      = 9

	ipsetAttrProtocol = 1
	ipsetAttrSetName  = 2
	ipsetAttrData     = 7
	ipsetAttrIP       = 1
	ipsetAttrIPv4     = 1
)

// An ipset is a set of IPv4 addresses in the kernel. It may be used by several goroutines.
type ipset struct {
	name string
	mu   sync.Mutex // one request at a time
	conn *netlink.Conn
}

func openIPSet(name string) (*ipset, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open ipset: %w", err)
	}
	return &ipset{name: name, conn: conn}, nil
}

// add returns when the kernel has the address in the set.
func (s *ipset) add(address netip.Addr) error {
	four := address.As4()
	data, err := encode(func(e *netlink.AttributeEncoder) {
		e.Uint8(ipsetAttrProtocol, ipsetProtocol)
		e.String(ipsetAttrSetName, s.name)
		e.Nested(ipsetAttrData, func(data *netlink.AttributeEncoder) error {
			data.Nested(ipsetAttrIP, func(ip *netlink.AttributeEncoder) error {
				ip.Bytes(ipsetAttrIPv4|unix.NLA_F_NET_BYTEORDER, four[:])
				return nil
			})
			return nil
		})
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  unix.NFNL_SUBSYS_IPSET<<8 | ipsetAdd,
			Flags: netlink.Request | netlink.Acknowledge,
		},
		Data: append(netfilterHeader(unix.AF_INET, 0), data...),
	})
	if err != nil {
		return fmt.Errorf("add %s to set %s: %w", address, s.name, err)
	}
	return nil
}

// netfilterHeader is struct nfgenmsg.
func netfilterHeader(family byte, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

func encode(write func(e *netlink.AttributeEncoder)) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	write(e)
	data, err := e.Encode()
	if err != nil {
		return nil, errors.Join(errors.New("encode attributes"), err)
	}
	return data, nil
}
