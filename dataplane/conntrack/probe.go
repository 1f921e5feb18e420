package conntrack

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/nameward/nameward/dataplane/preflight"
)

// Probe asks the kernel for a connection that cannot be: one that has no table to look into says something
// else than that it is not there.
func Probe() preflight.Requirement {
	return preflight.Judge("connection table", "nf_conntrack_netlink answers", probe(), "load nf_conntrack_netlink, and grant CAP_NET_ADMIN")
}

func probe() error {
	table, err := openTable()
	if err != nil {
		return err
	}
	defer table.close()
	nowhere := netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
	name := appendAttribute(head(unix.AF_INET), attrOriginal|unix.NLA_F_NESTED, nameTuple(nowhere, nowhere, unix.IPPROTO_UDP))
	if err := table.execute(messageGet, 0, name); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("ask for a connection: %w", err)
	}
	return nil
}
