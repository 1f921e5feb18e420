package conntrack

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Requirement is one thing that the node needs for connections to be cut, and whether it has it.
type Requirement struct {
	Name   string
	Met    bool
	Detail string // what was found
	Remedy string // what to do; empty when met
}

// Probe asks the kernel for a connection that cannot be: one that has no table to look into says something
// else than that it is not there.
func Probe() Requirement {
	r := Requirement{Name: "connection table", Remedy: "load nf_conntrack_netlink, and grant CAP_NET_ADMIN"}
	table, err := openTable()
	if err != nil {
		r.Detail = err.Error()
		return r
	}
	defer table.close()
	nowhere := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	name := appendAttribute(head(unix.AF_INET), attrOriginal|unix.NLA_F_NESTED, nameTuple(nowhere, nowhere, unix.IPPROTO_UDP))
	if err := table.execute(messageGet, 0, name); err != nil && !errors.Is(err, unix.ENOENT) {
		r.Detail = "ask for a connection: " + err.Error()
		return r
	}
	return Requirement{Name: r.Name, Met: true, Detail: "nf_conntrack_netlink answers"}
}
