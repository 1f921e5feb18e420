package lab

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// StartForwarder starts dnsmasq on the node, which answers on the addresses by asking the world's server.
func (l *Lab) StartForwarder(ctx context.Context, addresses ...netip.Addr) error {
	return l.StartDnsmasq(ctx, l.Node, addresses...)
}

// StartDnsmasq starts dnsmasq in a namespace, which answers on the addresses by asking the world's server.
func (l *Lab) StartDnsmasq(ctx context.Context, at *Namespace, addresses ...netip.Addr) error {
	args := []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--cache-size=0", "--bind-interfaces",
		"--user=root", "--pid-file=" + filepath.Join(l.Dir, "dnsmasq.pid"), "--server=" + ResolverV4.String(),
	}
	for _, address := range addresses {
		args = append(args, "--listen-address="+address.String())
	}
	return l.startResolver(ctx, at, "dnsmasq", args, addresses)
}

// StartUnbound starts unbound in a namespace, as StartDnsmasq does dnsmasq.
func (l *Lab) StartUnbound(ctx context.Context, at *Namespace, addresses ...netip.Addr) error {
	var config strings.Builder
	fmt.Fprintf(&config, `server:
    directory: %[1]q
    pidfile: ""
    username: ""
    chroot: ""
    use-syslog: no
    logfile: ""
    module-config: "iterator"
    num-threads: 1
    do-not-query-localhost: no
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
    local-zone: "example." nodefault
`, l.Dir)
	for _, address := range addresses {
		fmt.Fprintf(&config, "    interface: %s\n", address)
	}
	fmt.Fprintf(&config, "remote-control:\n    control-enable: no\nforward-zone:\n    name: \".\"\n    forward-addr: %s\n", ResolverV4)
	file := filepath.Join(l.Dir, "unbound.conf")
	if err := os.WriteFile(file, []byte(config.String()), 0o644); err != nil {
		return err
	}
	return l.startResolver(ctx, at, "unbound", []string{"-d", "-p", "-c", file}, addresses)
}

func (l *Lab) startResolver(ctx context.Context, at *Namespace, program string, args []string, addresses []netip.Addr) error {
	process, err := l.Start(ctx, at, program, program, args...)
	if err != nil {
		return err
	}
	return process.await(ctx, "answers", func() error {
		_, err := at.resolve(addresses[0], "api.example", dnsmessage.TypeA)
		return err
	})
}
