package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

// StartAnswering gives the world a further DNS server, which answers as a test says: other each time, or
// late, as a real one cannot be made to. It asks answer for the IPv4 addresses of a name, in a goroutine of
// each question; without any it stays silent.
func (l *Lab) StartAnswering(ctx context.Context, at netip.Addr, answer func(name string) []netip.Addr) error {
	resolver, err := l.AddScriptedResolver(ctx, at)
	if err != nil {
		return err
	}
	go resolver.serve(answer)
	return nil
}

func (r *ScriptedResolver) serve(answer func(name string) []netip.Addr) {
	for {
		buffer := make([]byte, 1500)
		size, from, err := r.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		var message dnsmessage.Message
		if err != nil || message.Unpack(buffer[:size]) != nil || len(message.Questions) != 1 {
			continue
		}
		go func() {
			name := message.Questions[0].Name
			message.Response = true
			for _, address := range answer(name.String()) {
				message.Answers = append(message.Answers, dnsmessage.Resource{
					Header: dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 300},
					Body:   &dnsmessage.AResource{A: address.As4()},
				})
			}
			if packed, err := message.Pack(); err == nil && len(message.Answers) > 0 {
				_, _ = r.WriteTo(packed, from)
			}
		}()
	}
}

// FloodQuestions asks a server for a name again and again, from one port and under another id each time,
// and hears nothing.
func (n *Namespace) FloodQuestions(server netip.Addr, name string, questions int) error {
	_, query, err := question(name, dnsmessage.TypeA)
	if err != nil {
		return err
	}
	var conn net.PacketConn
	if err := n.Do(func() (err error) {
		conn, err = net.ListenPacket("udp4", ":0")
		return err
	}); err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // all is sent
	for i := range questions {
		query[0], query[1] = byte(i>>8), byte(i)
		if _, err := conn.WriteTo(query, net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 53))); err != nil {
			return err
		}
	}
	return nil
}
