package syncserver

import (
	"net/netip"
	"strings"
)

// endpoints reads what an agent says of where its node may always connect to. What cannot be read is
// logged and left out: it serves explanations alone.
func (s *session) endpoints(what string, texts []string) []netip.AddrPort {
	var list []netip.AddrPort
	for _, text := range texts {
		endpoint, err := netip.ParseAddrPort(text)
		if err != nil {
			s.log.Warn("unreadable address", "what", what, "err", err)
			continue
		}
		list = append(list, endpoint)
	}
	return list
}

// addresses reads the node's own addresses and networks in the same way.
func (s *session) addresses(texts []string) []netip.Prefix {
	var list []netip.Prefix
	for _, text := range texts {
		prefix, err := parsePrefix(text)
		if err != nil {
			s.log.Warn("unreadable address", "what", "own address", "err", err)
			continue
		}
		list = append(list, prefix)
	}
	return list
}

func parsePrefix(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		return netip.ParsePrefix(text) //nolint:wrapcheck // it names the text
	}
	address, err := netip.ParseAddr(text)
	return netip.PrefixFrom(address, address.BitLen()), err //nolint:wrapcheck // it names the text
}
