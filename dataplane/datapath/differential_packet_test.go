package datapath

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"pgregory.net/rapid"

	"github.com/nameward/nameward/api/ruleset"
	"github.com/nameward/nameward/bpf/bpftest"
)

// A judgedPacket is a packet and all that the rules are asked about it.
type judgedPacket struct {
	ruleset.Connection
	link       uint32
	bytes      []byte
	unreadable bool // its headers: denied wherever a policy in mode ENFORCE selects it
	always     bool // allowed, whatever the policies say
}

func (w *world) drawPacket(r *rapid.T) judgedPacket {
	var p judgedPacket
	p.Local = rapid.IntRange(0, 2).Draw(r, "local") == 0
	p.Destination = rapid.SampledFrom(w.destinations).Draw(r, "destination")
	p.Names = w.names[p.Destination]
	p.Source = drawNear(r, rapid.SampledFrom(w.sourcesLike(p.Destination)).Draw(r, "source"))
	p.Interface = rapid.SampledFrom(append(testLinks, "lo")).Draw(r, "link")
	p.link = w.links[p.Interface]
	if p.Local {
		p.link = 0
	}
	protocol := rapid.SampledFrom([]uint8{bpftest.TCP, bpftest.TCP, bpftest.TCP, bpftest.UDP, bpftest.UDP, bpftest.SCTP, bpftest.ICMP, bpftest.ICMPv6, 47, 50, 59, 255}).Draw(r, "protocol")
	from := rapid.SampledFrom([]uint16{40000, 68, 546, 0}).Draw(r, "from")
	p.Port = rapid.SampledFrom(testPorts).Draw(r, "port")
	if rapid.IntRange(0, 19).Draw(r, "endpoint") == 0 && p.Destination.Is4() {
		endpoint := rapid.SampledFrom([]netip.AddrPort{testResolver, testServer}).Draw(r, "to")
		p.Destination, p.Names, p.Port = endpoint.Addr(), nil, endpoint.Port()
	}
	if rapid.IntRange(0, 9).Draw(r, "on link") == 0 {
		p.Destination, p.Names = rapid.SampledFrom(onLink(p.Source)).Draw(r, "to link"), nil
	}
	transport := bpftest.Ports(from, p.Port)
	switch protocol {
	case bpftest.ICMP, bpftest.ICMPv6:
		transport[0] = rapid.SampledFrom([]byte{0, 3, 8, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 143, 255}).Draw(r, "type")
		p.Protocol, p.Port = ruleset.ICMP, 0
	case bpftest.UDP:
		transport = bpftest.UDPHeader(from, p.Port, nil)
		fallthrough
	case bpftest.TCP, bpftest.SCTP:
		p.Protocol = ruleset.Protocol(protocol)
	default:
		p.Protocol, p.Port = ruleset.Protocol(protocol), 0
	}
	p.always = alwaysAllowed(p.Connection, protocol, from, transport[0])
	p.build(r, protocol, transport)
	return p
}

// drawNear draws an address, or one that differs from it in a bit.
func drawNear(r *rapid.T, address netip.Addr) netip.Addr {
	bytes := address.AsSlice()
	if bit := rapid.IntRange(-address.BitLen(), address.BitLen()-1).Draw(r, "differs"); bit >= 0 {
		bytes[bit/8] ^= 0x80 >> (bit % 8)
	}
	near, _ := netip.AddrFromSlice(bytes)
	return near
}

// sourcesLike gives the sources of a destination's family.
func (w *world) sourcesLike(destination netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(w.sources), func(a netip.Addr) bool { return a.Is4() != destination.Is4() })
}

// onLink returns where a client asks its link: all on it, by its own address, and by that of a neighbour.
func onLink(source netip.Addr) []netip.Addr {
	if source.Is4() {
		return []netip.Addr{netip.MustParseAddr("255.255.255.255")}
	}
	neighbour := source.As16()
	neighbour[15] ^= 0x80
	return []netip.Addr{netip.MustParseAddr("ff02::1:2"), netip.MustParseAddr("ff0e::1"), netip.MustParseAddr("fe80::7"), netip.AddrFrom16(neighbour)}
}

// alwaysAllowed says what semantics.md lists, but for what iptables rules let through before.
func alwaysAllowed(c ruleset.Connection, protocol uint8, from uint16, icmpType byte) bool {
	six := c.Destination.Is6()
	to := netip.AddrPortFrom(c.Destination, c.Port)
	switch protocol {
	case bpftest.ICMPv6: // neighbour discovery, and what it rests on
		neighbour := c.Destination.IsMulticast() || c.Destination.IsLinkLocalUnicast() || netip.PrefixFrom(c.Source, 64).Masked().Contains(c.Destination)
		listeners := icmpType >= 130 && icmpType <= 132 || icmpType == 143
		return six && (listeners && (c.Local || c.Destination.IsMulticast()) || icmpType >= 133 && icmpType <= 137 && (c.Local || neighbour))
	case bpftest.UDP:
		toLink := c.Local || c.Destination.IsMulticast() || c.Destination.IsLinkLocalUnicast() || c.Destination == netip.MustParseAddr("255.255.255.255")
		return to == testResolver || toLink && (!six && from == 68 && c.Port == 67 || six && from == 546 && c.Port == 547)
	case bpftest.TCP:
		return to == testResolver || to == testServer && c.Local
	}
	return false
}

// build makes the bytes: mostly plain, else with what may stand between or in headers.
func (p *judgedPacket) build(r *rapid.T, protocol uint8, transport []byte) {
	six := p.Destination.Is6()
	odd := rapid.IntRange(0, 9).Draw(r, "odd")
	if odd < 2 && six {
		p.extend(r, protocol, transport)
		return
	}
	p.bytes = bpftest.IP(p.Source, p.Destination, protocol, transport)
	ports := slices.Contains([]uint8{bpftest.TCP, bpftest.UDP, bpftest.SCTP}, protocol)
	switch {
	case odd == 2 && (ports || p.Protocol == ruleset.ICMP): // cut short before the ports, or the type
		least := 8
		if !ports {
			least = 1
		}
		p.bytes = p.bytes[:len(p.bytes)-len(transport)+rapid.IntRange(0, least-1).Draw(r, "cut")]
		p.unreadable = true
	case odd == 3 && !six: // options
		words := rapid.IntRange(1, 10).Draw(r, "options")
		p.bytes = slices.Insert(p.bytes, 14+20, make([]byte, words*4)...)
		p.bytes[14] += byte(words)
	case odd == 4 && !six: // a fragment, the first or another
		flags := rapid.SampledFrom([]uint16{0x4000, 0x2000, 0x2001, 0x0001, 0x1fff, 0x3fff}).Draw(r, "fragment")
		binary.BigEndian.PutUint16(p.bytes[14+6:], flags)
		p.unreadable = flags&0x1fff != 0
	}
}

// extend puts extension headers in front of the transport header.
func (p *judgedPacket) extend(r *rapid.T, protocol uint8, transport []byte) {
	const hopByHop, routing, fragment, authentication, destination, mobility, hip, shim6 = 0, 43, 44, 51, 60, 135, 139, 140
	kinds := rapid.SliceOfN(rapid.SampledFrom([]byte{hopByHop, routing, fragment, authentication, destination, mobility, hip, shim6}), 1, 9).Draw(r, "extensions") // 8 and more are not read
	var headers []byte
	var starts []int
	for i, kind := range kinds {
		next := protocol
		if i < len(kinds)-1 {
			next = kinds[i+1]
		}
		words := rapid.IntRange(0, 3).Draw(r, "length")
		header := []byte{next, byte(words)}
		switch kind {
		case authentication: // counted in words of 4 bytes, less 2
			header = append(header, make([]byte, (words+2)*4-2)...)
		case fragment:
			header = append(header, 0, rapid.SampledFrom([]byte{0, 0, 0, 1, 8}).Draw(r, "offset"), 0, 0, 0, 1)
			if header[3]&0xf8 != 0 {
				p.unreadable = true
			}
		default:
			header = append(header, make([]byte, (words+1)*8-2)...)
		}
		starts = append(starts, len(headers))
		headers = append(headers, header...)
	}
	if len(kinds) > 8 {
		p.unreadable = true
	}
	whole := slices.Concat(headers, transport)
	if rapid.IntRange(0, 4).Draw(r, "cut") == 0 {
		whole = whole[:rapid.IntRange(0, len(whole)-1).Draw(r, "at")]
	}
	least := map[ruleset.Protocol]int{ruleset.TCP: 8, ruleset.UDP: 8, ruleset.SCTP: 8, ruleset.ICMP: 1}[p.Protocol]
	if len(kinds) >= 8 || len(headers)+least > len(whole) && least > 0 || starts[len(starts)-1]+4 > len(whole) {
		p.unreadable = true
	}
	p.bytes = bpftest.IP(p.Source, p.Destination, kinds[0], whole)
}
