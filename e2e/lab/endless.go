package lab

import (
	"fmt"
	"net/netip"
)

// endlessRecords has the world's DNS server make records from the addresses that names say.
const endlessRecords = `mod-synthrecord:
  - id: v4
    type: forward
    prefix: v4-
    ttl: 60
    network: 198.19.0.0/16
  - id: v6
    type: forward
    prefix: v6-
    ttl: 60
    network: 2001:db8:18:ffff::/64
`

const endlessZone = `$ORIGIN endless.example.
$TTL 60
@ SOA ns hostmaster 1 3600 600 86400 60
@ NS ns
ns A 198.18.0.1
`

// EndlessName returns a name with an address of its own, of a resolver's family. Those of IPv4 begin anew
// after 65,536.
func EndlessName(resolver netip.Addr, i int) string {
	if resolver.Is4() {
		return fmt.Sprintf("v4-198-19-%d-%d.endless.example", i>>8&255, i&255)
	}
	return fmt.Sprintf("v6-2001-db8-18-ffff--%x-%x.endless.example", i>>16&0xffff, i&0xffff)
}
