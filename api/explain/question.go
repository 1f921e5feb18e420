package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/nameward/nameward/api/domain"
	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/ruleset"
)

// Question is a connection that is asked about.
type Question struct {
	// Connection has no names yet, and no destination when Name is set.
	Connection ruleset.Connection
	// Name is the destination that is a domain name.
	Name       domain.Name
	SourcePort uint16
}

// Parse reads the connection of a request; its node and labels are the caller's to read. An error joins a
// *ruleset.FieldError for every fault.
func Parse(request *namewardv1.ExplainConnectionRequest) (Question, error) {
	var q Question
	var f faults
	q.parseWorkload(&f, request.GetWorkload(), request.GetInterface())
	q.parseDestination(&f, request.GetDestination())
	protocol, err := ruleset.ParseProtocol(request.GetProtocol())
	if err != nil {
		f, protocol = append(f, err), ruleset.TCP
	}
	q.Connection.Protocol = protocol
	q.Connection.Port = f.port("port", request.GetPort(), protocol)
	q.SourcePort = f.port("source_port", request.GetSourcePort(), protocol)
	source, destination := q.Connection.Source, q.Connection.Destination
	if source.IsValid() && destination.IsValid() && source.Is4() != destination.Is4() {
		f.add("destination", request.GetDestination(), "is no "+family(source)+" address, as the workload is")
	}
	return q, errors.Join(f...)
}

// faults collects every fault of a request.
type faults []error

func (f *faults) add(field, value, reason string) {
	*f = append(*f, &ruleset.FieldError{Field: field, Value: value, Reason: reason})
}

func (f *faults) port(field string, port uint32, protocol ruleset.Protocol) uint16 {
	switch {
	case port > 65535:
		f.add(field, fmt.Sprint(port), "is above 65535")
	case port != 0 && !protocol.HasPorts():
		f.add(field, fmt.Sprint(port), "the protocol has no ports")
	}
	return uint16(port) //nolint:gosec // above 65535 is a fault
}

func (q *Question) parseWorkload(f *faults, text, incoming string) {
	c := &q.Connection
	if err := c.ParseSource(text); err != nil {
		f.add("workload", text, err.Error())
	}
	c.Interface = incoming
	switch {
	case incoming == "":
	case c.Local:
		f.add("interface", incoming, "the node's own processes have no incoming interface")
	case len(incoming) > maxInterface || strings.ContainsAny(incoming, " \t\n\v\f\r/:+\x00"):
		f.add("interface", incoming, fmt.Sprintf("is no interface name of at most %d characters", maxInterface))
	}
}

// maxInterface is the longest interface name, IFNAMSIZ - 1 (linux/if.h).
const maxInterface = 15

func (q *Question) parseDestination(f *faults, text string) {
	if address, err := netip.ParseAddr(text); err == nil {
		q.Connection.Destination = address.Unmap().WithZone("")
		return
	}
	name, err := domain.ParseName(text)
	if err != nil && strings.Contains(text, `\`) { // a name of odd bytes, as mappings show it
		name, err = domain.ParseCanonical(text)
	}
	if err == nil {
		q.Name = name
		return
	}
	reason := "is neither an address nor a domain name: " + err.Error()
	if _, patternErr := domain.ParsePattern(text); patternErr == nil {
		reason = "is a pattern: name one domain that it matches"
	}
	f.add("destination", text, reason)
}

func family(address netip.Addr) string {
	if address.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
