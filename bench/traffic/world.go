package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
)

// servicePort is the TCP port on which every service address answers.
const servicePort = 8443

// sharedAddresses is how many addresses there are that any number of fresh names can have.
const sharedAddresses = 64

// zones are those below which every name exists: knot makes the addresses of fresh.bench from their names
// (mod-synthrecord), and shared.bench has wildcards.
const (
	freshZone  = "fresh.bench"
	sharedZone = "shared.bench"
	readyName  = "n-10-128-0-1." + freshZone
)

// freshName is the name that has a service address of its own.
func freshName(number int) (string, netip.Addr) {
	bytes := services.Addr().As4()
	number += 256
	bytes[1] += byte(number >> 16)
	bytes[2], bytes[3] = byte(number>>8), byte(number)
	return fmt.Sprintf("n-%d-%d-%d-%d.%s", bytes[0], bytes[1], bytes[2], bytes[3], freshZone), netip.AddrFrom4(bytes)
}

// sharedName is one of any number of names that have a shared address.
func sharedName(shared, number int) string {
	return fmt.Sprintf("q%08d.s%d.%s", number, shared, sharedZone)
}

// startKnot starts the world's DNS server.
func (n *network) startKnot(ctx context.Context) error {
	dir := n.file("bench-knot")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make directory of the DNS server: %w", err)
	}
	const authority = "$TTL 3600\n@ SOA ns admin 1 3600 600 86400 60\n@ NS ns\nns A 10.255.255.53\n"
	var wildcards strings.Builder
	for i := range sharedAddresses {
		fmt.Fprintf(&wildcards, "*.s%d A 10.254.0.%d\n", i, i+1)
	}
	config := fmt.Sprintf(`server:
    rundir: %[1]s
    listen: %[2]s@53
    udp-workers: 2
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: warning
database:
    storage: %[1]s
mod-synthrecord:
  - id: fresh
    type: forward
    prefix: n-
    ttl: 3600
    network: %[3]s
template:
  - id: default
    storage: %[1]s
    zonefile-load: whole
    zonefile-sync: -1
    journal-content: none
zone:
  - domain: %[4]s
    file: fresh.zone
    module: mod-synthrecord/fresh
  - domain: %[5]s
    file: shared.zone
`, dir, resolver, services, freshZone, sharedZone)
	for name, text := range map[string]string{
		"fresh.zone": authority, "shared.zone": authority + wildcards.String(), "knot.conf": config,
	} {
		if err := os.WriteFile(n.file("bench-knot/"+name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("configure the DNS server: %w", err)
		}
	}
	process, err := n.Start(ctx, n.World, "bench-knotd", "knotd", "-c", n.file("bench-knot/knot.conf"))
	if err != nil {
		return err
	}
	return (&way{client: n.World, server: resolver}).awaitAnswers(ctx, process)
}

// startService accepts connections on every service address and closes them.
func (n *network) startService() error {
	var listener net.Listener
	err := n.World.Do(func() (err error) {
		listener, err = net.Listen("tcp4", fmt.Sprintf(":%d", servicePort))
		return err
	})
	if err != nil {
		return fmt.Errorf("start service: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				_ = conn.Close()
			}
		}
	}()
	n.close = append(n.close, func() error {
		err := listener.Close()
		<-ended
		return err
	})
	return nil
}
