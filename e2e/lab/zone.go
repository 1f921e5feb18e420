package lab

import (
	"fmt"
	"io"
)

// largeNameAddresses is how many addresses large.example has: so many addresses that an answer to a simple client over UDP is truncated.
const largeNameAddresses = 60

func writeLargeName(zone io.Writer) error {
	for n := range largeNameAddresses {
		if _, err := fmt.Fprintf(zone, "large A 198.18.211.%d\nlarge AAAA 2001:db8:18:211::%d\n", n+1, n+1); err != nil {
			return err
		}
	}
	return nil
}

// unusualZone is what the world's DNS server says of example besides: records that few names have.
const unusualZone = `
alias DNAME shop
h3 HTTPS 1 . alpn=h3 ipv4hint=198.18.208.1 ipv6hint=2001:db8:18:208::1
_api.h3 SVCB 1 h3 port=8443 ipv4hint=198.18.208.2 ipv6hint=2001:db8:18:208::2
https.h3 HTTPS 0 h3
rebind A 127.0.0.1
rebind A 169.254.169.254
rebind A 0.0.0.0
rebind A 224.0.0.1
rebind A 255.255.255.255
rebind A 198.18.209.1
rebind AAAA ::
rebind AAAA ::1
rebind AAAA ::ffff:198.18.209.2
rebind AAAA fe80::1
rebind AAAA ff02::1
rebind AAAA 2001:db8:18:209::1
policy.fleet A 10.91.3.2
`
