package node

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/bpf/bpftest"
	"github.com/nameward/nameward/e2e/lab"
)

// feed shows the agent's own pinned programs questions and answers, as packets of the lab's client and of its
// resolver. The kernel and the agent cannot tell them from others; what the path of packets costs is left out.
type feed struct {
	query, response *ebpf.Program
}

func openFeed(dir string) (f *feed, err error) {
	f = &feed{}
	if f.query, err = openProgram(dir, bpf.DatapathProgDnsQueryForwarded); err != nil {
		return f, err
	}
	if f.response, err = openProgram(dir, bpf.DatapathProgDnsResponse); err != nil {
		return f, errors.Join(err, f.close())
	}
	return f, nil
}

func openProgram(dir, name string) (*ebpf.Program, error) {
	pins, err := filepath.Glob(filepath.Join(dir, name+"-*"))
	if err != nil || len(pins) != 1 {
		return nil, fmt.Errorf("find program %s: there are %d: %w", name, len(pins), err)
	}
	program, err := ebpf.LoadPinnedProgram(pins[0], nil)
	if err != nil {
		return nil, fmt.Errorf("open program %s: %w", name, err)
	}
	return program, nil
}

func (f *feed) close() error {
	var errs []error
	for _, program := range []*ebpf.Program{f.query, f.response} {
		if program != nil {
			errs = append(errs, program.Close())
		}
	}
	return errors.Join(errs...)
}

// exchange is a question and its answer, as packets.
type exchange struct{ query, response []byte }

// newExchange makes the answer of one address, which the name has by way of an alias.
func newExchange(id uint16, name, alias string, address netip.Addr, ttl uint32) (exchange, error) {
	asked, err := dnsmessage.NewName(name + ".")
	if err != nil {
		return exchange{}, err
	}
	canonical, err := dnsmessage.NewName(alias + ".")
	if err != nil {
		return exchange{}, err
	}
	message := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: id, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: asked, Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}},
	}
	client, resolver := netip.AddrPortFrom(lab.ClientV4, 1024+id/4*4), netip.AddrPortFrom(lab.ResolverV4, 53)
	query, err := message.Pack()
	if err != nil {
		return exchange{}, err
	}
	message.Response, message.RecursionAvailable = true, true
	header := func(name dnsmessage.Name, kind dnsmessage.Type) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name, Type: kind, Class: dnsmessage.ClassINET, TTL: ttl}
	}
	message.Answers = []dnsmessage.Resource{
		{Header: header(asked, dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: canonical}},
		{Header: header(canonical, dnsmessage.TypeA), Body: &dnsmessage.AResource{A: address.As4()}},
	}
	response, err := message.Pack()
	if err != nil {
		return exchange{}, err
	}
	return exchange{bpftest.Datagram(client, resolver, query), bpftest.Datagram(resolver, client, response)}, nil
}

// address is one of the lab's services for each number up to 2^17.
func address(i int) netip.Addr {
	bytes := lab.ServicesV4.Addr().As4()
	bytes[1] += byte(i >> 16 & 1)
	bytes[2], bytes[3] = byte(i>>8), byte(i)
	return netip.AddrFrom4(bytes)
}

// show has the node see an exchange.
func (f *feed) show(e exchange) error {
	if _, err := f.query.Run(&ebpf.RunOptions{Data: e.query, Repeat: 1}); err != nil {
		return fmt.Errorf("show a question: %w", err)
	}
	if _, err := f.response.Run(&ebpf.RunOptions{Data: e.response, Repeat: 1}); err != nil {
		return fmt.Errorf("show an answer: %w", err)
	}
	return nil
}

// showAll shows exchanges at a rate a second, and notes when each was shown.
func (f *feed) showAll(ctx context.Context, exchanges []exchange, rate int, shown []time.Time) error {
	begun := time.Now()
	for i, e := range exchanges {
		due := begun.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if wait := time.Until(due); wait > 0 {
			time.Sleep(wait)
		}
		if i%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		shown[i] = time.Now()
		if err := f.show(e); err != nil {
			return err
		}
	}
	return nil
}
