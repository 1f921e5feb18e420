package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

const (
	messageMax     = 4096
	answerPatience = 2 * time.Second
	bufferBytes    = 4 << 20
)

// A proxy answers clients by asking a server. An answer goes back when its addresses are open.
type proxy struct {
	clients  *net.UDPConn
	upstream string
	learn    func(message []byte) error
	idle     sync.Pool // of *net.UDPConn to the server: one question at a time each, a port of its own
}

func serveProxy(listen, upstream string, withNames bool, opener *opener) error {
	at, err := netip.ParseAddrPort(listen)
	if err != nil {
		return fmt.Errorf("read address: %w", err)
	}
	clients, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer clients.Close() //nolint:errcheck // the process ends
	if err := clients.SetReadBuffer(bufferBytes); err != nil {
		return fmt.Errorf("set read buffer: %w", err)
	}
	p := &proxy{clients: clients, upstream: upstream, learn: opener.open}
	if withNames {
		p.learn = newNameTable(opener).learn
	}
	fmt.Println("ready")
	for {
		query := make([]byte, messageMax)
		size, client, err := clients.ReadFromUDPAddrPort(query)
		if err != nil {
			return fmt.Errorf("hear clients: %w", err)
		}
		go p.answer(query[:size], client)
	}
}

func (p *proxy) answer(query []byte, client netip.AddrPort) {
	answer, err := p.ask(query)
	if err == nil {
		err = p.learn(answer)
	}
	if err == nil {
		_, err = p.clients.WriteToUDPAddrPort(answer, client)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
	}
}

func (p *proxy) ask(query []byte) ([]byte, error) {
	conn, _ := p.idle.Get().(*net.UDPConn)
	if conn == nil {
		dialled, err := net.Dial("udp4", p.upstream)
		if err != nil {
			return nil, err
		}
		conn = dialled.(*net.UDPConn)
	}
	answer, err := exchange(conn, query)
	if err != nil {
		_ = conn.Close() // a late answer must not meet the next question
		return nil, err
	}
	p.idle.Put(conn)
	return answer, nil
}

func exchange(conn *net.UDPConn, query []byte) ([]byte, error) {
	if err := conn.SetDeadline(time.Now().Add(answerPatience)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(query); err != nil {
		return nil, err
	}
	answer := make([]byte, messageMax)
	for {
		size, err := conn.Read(answer)
		if err != nil {
			return nil, err
		}
		if size >= 2 && answer[0] == query[0] && answer[1] == query[1] {
			return answer[:size], nil
		}
	}
}
