package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// systemResolvers reads the name servers that the node itself asks.
func systemResolvers(path string) ([]netip.AddrPort, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the node's resolvers, since none is named: %w", err)
	}
	var resolvers []netip.AddrPort
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if address, err := netip.ParseAddr(fields[1]); err == nil {
			resolvers = append(resolvers, netip.AddrPortFrom(address.Unmap().WithZone(""), dnsPort))
		}
	}
	if len(resolvers) == 0 {
		return nil, errors.New("must be set: " + path + " names no server")
	}
	return resolvers, nil
}
