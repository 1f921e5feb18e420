package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// A ScriptedResolver is a DNS server of the world that says what a test has it say, and nothing before.
type ScriptedResolver struct {
	Address netip.AddrPort
	net.PacketConn
}

// AddWorldAddress gives the world a further address, on the node's network.
func (l *Lab) AddWorldAddress(ctx context.Context, address netip.Addr) error {
	args := []string{"-n", l.World.Name, "addr", "add", address.String() + "/24", "dev", "eth0"}
	if address.Is6() {
		args = []string{"-n", l.World.Name, "addr", "add", address.String() + "/64", "dev", "eth0", "nodad"}
	}
	return run(ctx, "ip", args...)
}

// AddScriptedResolver gives the world a further address, on which a test answers questions over UDP.
func (l *Lab) AddScriptedResolver(ctx context.Context, address netip.Addr) (*ScriptedResolver, error) {
	if err := l.AddWorldAddress(ctx, address); err != nil {
		return nil, err
	}
	resolver := &ScriptedResolver{Address: netip.AddrPortFrom(address, 53)}
	err := l.World.Do(func() (err error) {
		resolver.PacketConn, err = net.ListenPacket("udp", resolver.Address.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	l.cleanup = append(l.cleanup, resolver.Close)
	return resolver, nil
}

// Hear waits for the next question: its bytes, and who asks.
func (r *ScriptedResolver) Hear() (query []byte, client netip.AddrPort, err error) {
	if err := r.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return nil, client, err
	}
	buffer := make([]byte, 65535)
	size, from, err := r.ReadFrom(buffer)
	if err != nil {
		return nil, client, fmt.Errorf("hear a question: %w", err)
	}
	return buffer[:size], from.(*net.UDPAddr).AddrPort(), nil
}

// Say sends a client a message.
func (r *ScriptedResolver) Say(client netip.AddrPort, message []byte) error {
	_, err := r.WriteTo(message, net.UDPAddrFromAddrPort(client))
	return err
}

// Asker is a client's socket, which asks and is sent answers, by whomever.
type Asker struct {
	Address netip.AddrPort // of the client: what answers are sent to
	net.PacketConn
}

// NewAsker opens a socket on an address of the namespace. It goes with the lab.
func (l *Lab) NewAsker(n *Namespace, address netip.Addr) (*Asker, error) {
	var asker Asker
	err := n.Do(func() (err error) {
		asker.PacketConn, err = net.ListenPacket("udp", netip.AddrPortFrom(address, 0).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	l.cleanup = append(l.cleanup, asker.Close)
	asker.Address = asker.LocalAddr().(*net.UDPAddr).AddrPort()
	return &asker, nil
}

// Ask sends a query.
func (a *Asker) Ask(server netip.AddrPort, query []byte) error {
	_, err := a.WriteTo(query, net.UDPAddrFromAddrPort(server))
	return err
}

// Hear waits for the next message.
func (a *Asker) Hear() ([]byte, error) {
	if err := a.SetReadDeadline(time.Now().Add(Patience)); err != nil {
		return nil, err
	}
	buffer := make([]byte, 65535)
	size, _, err := a.ReadFrom(buffer)
	if err != nil {
		return nil, fmt.Errorf("hear an answer: %w", err)
	}
	return buffer[:size], nil
}
