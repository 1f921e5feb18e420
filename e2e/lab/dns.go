package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// FreshNames is how many names fresh.example has: FreshName(i) for i below it, each with an address of
// its own in either family.
const FreshNames = 12000

// FreshName returns the i-th fresh name.
func FreshName(i int) string { return fmt.Sprintf("n%05d.fresh.example", i) }

// ShapedNames returns names of the shapes that patterns tell apart, without what ShapedName puts behind
// them.
func ShapedNames() []string {
	return []string{
		"", "www", "www.a", "www.a.b", "x.www.a", "s3-", "s3-eu", "s3-a.b", "x.s3-eu", "x.y.s3-eu", "s4-eu", "-a-_b-", "xn--bcher-kva",
		"caf\xe9", // a byte that no pattern has
	}
}

// ShapedDomains is how many domains have all shaped names, each with an address of its own.
const ShapedDomains = 16

// ShapedDomain returns the i-th domain of shaped names.
func ShapedDomain(i int) string { return fmt.Sprintf("d%d.shaped.example", i) }

// ShapedName returns a shaped name of the i-th domain.
func ShapedName(i int, shape string) string {
	return strings.TrimPrefix(shape+"."+ShapedDomain(i), ".")
}

func writeShapedNames(zone io.Writer) error {
	for i := range ShapedDomains {
		for j, shape := range ShapedNames() {
			name := strings.ReplaceAll(ShapedName(i, shape), "\xe9", `\233`)
			_, err := fmt.Fprintf(zone, "%[1]s. A 198.18.%[2]d.%[3]d\n%[1]s. AAAA 2001:db8:18:%[2]d::%[3]d\n", name, 210+i, j+1)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// zone is what the world's DNS server says of example.
const zone = `$ORIGIN example.
$TTL 60
@ SOA ns admin 1 3600 600 86400 60
@ NS ns
ns A 10.91.2.2
api A 198.18.200.1
api AAAA 2001:db8:18:200::1
api A 198.18.200.2
shop A 198.18.206.1
shop AAAA 2001:db8:18:206::1
www.shop CNAME edge.cdn
edge.cdn CNAME pool.cdn
pool.cdn A 198.18.201.1
pool.cdn AAAA 2001:db8:18:201::1
evil A 198.18.202.1
evil AAAA 2001:db8:18:202::1
tracker.shop A 198.18.203.1
tracker.shop AAAA 2001:db8:18:203::1
late A 198.18.204.1
late AAAA 2001:db8:18:204::1
one.shared A 198.18.207.1
one.shared AAAA 2001:db8:18:207::1
two.shared A 198.18.207.1
two.shared AAAA 2001:db8:18:207::1
brief 5 A 198.18.208.9
brief 5 AAAA 2001:db8:18:208::9
*.wild A 198.18.205.1
*.wild AAAA 2001:db8:18:205::1
`

func (l *Lab) startDNS(ctx context.Context) error {
	dir := filepath.Join(l.Dir, "knot")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString(zone)
	text.WriteString(unusualZone)
	for i := range FreshNames {
		v4 := ServicesV4.Addr().As4()
		v4[2], v4[3] = byte(i>>8), byte(i)
		fmt.Fprintf(&text, "n%05d.fresh A %s\nn%05d.fresh AAAA 2001:db8:18::%x\n", i, netip.AddrFrom4(v4), i, i+1)
	}
	if err := errors.Join(writeShapedNames(&text), writeLargeName(&text)); err != nil {
		return err
	}
	config := fmt.Sprintf(`server:
    rundir: %[1]s
    listen: [ %[2]s@53, %[3]s@53, %[4]s@53, %[5]s@53 ]
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: %[1]s
%[6]stemplate:
  - id: default
    storage: %[1]s
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
zone:
  - domain: example
    file: example.zone
  - domain: endless.example
    file: endless.zone
    module: [ mod-synthrecord/v4, mod-synthrecord/v6 ]
`, dir, ResolverV4, ResolverV6, RogueV4, RogueV6, endlessRecords)
	for name, content := range map[string]string{"example.zone": text.String(), "endless.zone": endlessZone, "knot.conf": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	process, err := l.Start(ctx, l.World, "knotd", "knotd", "-c", filepath.Join(dir, "knot.conf"))
	if err != nil {
		return err
	}
	return process.await(ctx, "answers", func() error {
		_, err := l.World.resolve(ResolverV4, "api.example", dnsmessage.TypeA)
		return err
	})
}

// Resolve asks the world's DNS server for the addresses of a name, of the family of resolver, from the
// client.
func (l *Lab) Resolve(resolver netip.Addr, name string) ([]netip.Addr, error) {
	return l.Client.Resolve(resolver, name)
}

// Resolve asks a DNS server for the addresses of a name, of the server's family, from the namespace.
func (n *Namespace) Resolve(server netip.Addr, name string) ([]netip.Addr, error) {
	if server.Is4() {
		return n.resolve(server, name, dnsmessage.TypeA)
	}
	return n.resolve(server, name, dnsmessage.TypeAAAA)
}

func (n *Namespace) resolve(server netip.Addr, name string, kind dnsmessage.Type) ([]netip.Addr, error) {
	id, packed, err := question(name, kind)
	if err != nil {
		return nil, err
	}
	conn, err := n.Dial("udp", netip.AddrPortFrom(server, 53).String(), time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	return exchange(conn, packed, id)
}

// AskInTurn asks for the IPv4 addresses of names from one socket, as a resolver library may, and returns
// what went wrong with each.
func (n *Namespace) AskInTurn(server netip.Addr, names ...string) ([]error, error) {
	conn, err := n.Dial("udp", netip.AddrPortFrom(server, 53).String(), time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	errs := make([]error, len(names))
	for i, name := range names {
		id, query, err := question(name, dnsmessage.TypeA)
		if err != nil {
			return nil, err
		}
		_, errs[i] = exchange(conn, query, id)
	}
	return errs, nil
}

// question packs a query with an id of its own.
func question(name string, kind dnsmessage.Type) (id uint16, packed []byte, err error) {
	parsed, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return 0, nil, err
	}
	id = uint16(rand.Uint32()) //nolint:gosec // unpredictability is not what is tested here
	query := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: parsed, Type: kind, Class: dnsmessage.ClassINET}},
	}
	packed, err = query.Pack()
	return id, packed, err
}

// AskBoth sends one and the same query, from one socket of the client, to a server that does not answer
// and then to another, and waits for the answer of the latter.
func (l *Lab) AskBoth(silent, answering netip.Addr, name string) ([]netip.Addr, error) {
	id, query, err := question(name, dnsmessage.TypeA)
	if err != nil {
		return nil, err
	}
	var socket net.PacketConn
	err = l.Client.Do(func() (err error) {
		socket, err = net.ListenPacket("udp4", ":0")
		return err
	})
	if err != nil {
		return nil, err
	}
	defer socket.Close() //nolint:errcheck // nothing is buffered
	for _, server := range []netip.Addr{silent, answering} {
		if _, err := socket.WriteTo(query, net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 53))); err != nil {
			return nil, err
		}
	}
	if err := socket.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	buffer := make([]byte, 65535)
	size, _, err := socket.ReadFrom(buffer)
	if err != nil {
		return nil, err
	}
	return addressesIn(buffer[:size], id)
}

func exchange(conn net.Conn, query []byte, id uint16) ([]netip.Addr, error) {
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	buffer := make([]byte, 65535)
	size, err := conn.Read(buffer)
	if err != nil {
		return nil, err
	}
	return addressesIn(buffer[:size], id)
}

// addressesIn returns the addresses in the response to the query of an id.
func addressesIn(message []byte, id uint16) ([]netip.Addr, error) {
	var response dnsmessage.Message
	if err := response.Unpack(message); err != nil {
		return nil, err
	}
	if response.ID != id || response.RCode != dnsmessage.RCodeSuccess {
		return nil, fmt.Errorf("response %d to query %d: %v", response.ID, id, response.RCode)
	}
	var addresses []netip.Addr
	for _, answer := range response.Answers {
		switch body := answer.Body.(type) {
		case *dnsmessage.AResource:
			addresses = append(addresses, netip.AddrFrom4(body.A))
		case *dnsmessage.AAAAResource:
			addresses = append(addresses, netip.AddrFrom16(body.AAAA))
		}
	}
	if len(addresses) == 0 {
		return nil, errors.New("no address in the response")
	}
	return addresses, nil
}
