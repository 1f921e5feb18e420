// Command baseline opens addresses from user space, as a node without Nameward would: by a queue of packets
// (NFQUEUE) or as a DNS proxy. It is what the bench measures beside Nameward; small on purpose, and correct.
// In either mode an address of an answer goes into an ipset that a rule of the node matches.
package main

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "baseline:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want queue or proxy")
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	set := flags.String("set", "", "ipset that the addresses go into")
	suffix := flags.String("suffix", "", "names below this one are allowed")
	number := flags.Uint("queue", 0, "queue: its number")
	hold := flags.Bool("hold", false, "queue: let a packet go only when the set has its addresses")
	listen := flags.String("listen", "", "proxy: address and port that clients ask")
	upstream := flags.String("upstream", "", "proxy: address and port of the server that it asks")
	names := flags.Bool("names", false, "proxy: keep the names of each address, and judge an address by them")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	opener, err := newOpener(*set, *suffix)
	if err != nil {
		return err
	}
	switch args[0] {
	case "queue":
		return serveQueue(uint16(*number), *hold, opener) //nolint:gosec // the bench gives it a small one
	case "proxy":
		return serveProxy(*listen, *upstream, *names, opener)
	}
	return fmt.Errorf("%q is neither queue nor proxy", args[0])
}

// An opener opens the addresses of allowed names.
type opener struct {
	set    *ipset
	suffix string
}

func newOpener(set, suffix string) (*opener, error) {
	s, err := openIPSet(set)
	return &opener{s, "." + suffix + "."}, err
}

func (o *opener) allows(name string) bool { return strings.HasSuffix(strings.ToLower(name), o.suffix) }

// open reads a response and opens its addresses if its name is allowed.
func (o *opener) open(message []byte) error {
	name, addresses, err := readAnswer(message)
	if err != nil || !o.allows(name) {
		return err
	}
	for _, address := range addresses {
		if err := o.set.add(address); err != nil {
			return err
		}
	}
	return nil
}

// readAnswer gives the name that a response is about, and its addresses.
func readAnswer(message []byte) (name string, addresses []netip.Addr, err error) {
	var parser dnsmessage.Parser
	if _, err := parser.Start(message); err != nil {
		return "", nil, err
	}
	question, err := parser.Question()
	if err != nil {
		return "", nil, err
	}
	if err := parser.SkipAllQuestions(); err != nil {
		return "", nil, err
	}
	for {
		header, err := parser.AnswerHeader()
		if err == dnsmessage.ErrSectionDone { //nolint:errorlint // the parser returns it as it is
			return question.Name.String(), addresses, nil
		}
		if err != nil {
			return "", nil, err
		}
		if header.Type != dnsmessage.TypeA {
			if err := parser.SkipAnswer(); err != nil {
				return "", nil, err
			}
			continue
		}
		record, err := parser.AResource()
		if err != nil {
			return "", nil, err
		}
		addresses = append(addresses, netip.AddrFrom4(record.A))
	}
}
