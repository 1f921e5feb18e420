// Package transport is how server, agents and command line reach each other: mutual TLS 1.3, with certificates from
// files or from a SPIFFE Workload API that are renewed under running connections, or plain text where --insecure
// says so. Both ends know who the other is; whoever is refused hears why, and so does the log.
package transport

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/nameward/nameward/api/identity"
)

// Config says where certificates come from, and whom to trust. Fields are named after the flags.
type Config struct {
	CertFile, KeyFile string
	// CAFile holds the CAs that the other end must be of; CAAlias is the same by the name that it has on a server.
	CAFile, CAAlias string
	// SPIFFESocket is the Unix socket of a SPIFFE Workload API, instead of files.
	SPIFFESocket string
	// TrustDomain is whom to speak with; empty for that of the own certificate.
	TrustDomain string
	// ServerName is what the server's certificate must be good for; empty for the host that is connected to.
	ServerName string
	// NodeDNSNames has a DNS name speak for a node, in certificates without a SPIFFE ID.
	NodeDNSNames bool
}

// end is which end of a connection the program is, by the flag that names the CAs of the other.
type end string

const (
	serverEnd end = "client-ca"
	clientEnd end = "server-ca"
)

// BindServer declares the flags of a server.
func (c *Config) BindServer(flags *pflag.FlagSet) {
	c.bind(flags)
	flags.StringVar(&c.CAFile, "client-ca", c.CAFile, "file of the CAs (PEM) that agents and operators must have their certificates from")
	flags.BoolVar(&c.NodeDNSNames, "node-dns-names", c.NodeDNSNames, "accept a certificate without a SPIFFE ID as that of the node that its only DNS name names")
}

// BindClient declares the flags of a client.
func (c *Config) BindClient(flags *pflag.FlagSet) {
	c.bind(flags)
	flags.StringVar(&c.CAFile, "server-ca", c.CAFile, "file of the CAs (PEM) that the server must have its certificate from")
	flags.StringVar(&c.CAAlias, "client-ca", c.CAAlias, "the same as --server-ca")
	flags.StringVar(&c.ServerName, "tls-server-name", c.ServerName, "name that the server's certificate must be good for (default: the host of --server)")
}

func (c *Config) bind(flags *pflag.FlagSet) {
	flags.StringVar(&c.CertFile, "tls-cert", c.CertFile, "file of this program's certificate (PEM); a new one is taken up by itself")
	flags.StringVar(&c.KeyFile, "tls-key", c.KeyFile, "file of its key (PEM)")
	flags.StringVar(&c.SPIFFESocket, "spiffe-socket", c.SPIFFESocket, "Unix socket of a SPIFFE Workload API that certificates come from, instead of files")
	flags.StringVar(&c.TrustDomain, "trust-domain", c.TrustDomain, "SPIFFE trust domain of whom to speak with (default: that of this program's own certificate)")
}

// Names returns the names of the flags of a client.
func Names() []string {
	return []string{"tls-cert", "tls-key", "server-ca", "client-ca", "spiffe-socket", "trust-domain", "tls-server-name"}
}

// ca returns the file of the CAs.
func (c Config) ca() string { return cmp.Or(c.CAFile, c.CAAlias) }

// IsSet reports whether the configuration says where certificates come from.
func (c Config) IsSet() bool {
	return c.CertFile != "" || c.KeyFile != "" || c.ca() != "" || c.SPIFFESocket != ""
}

// ValidateServer hands every fault of a server's configuration to fault, with the name of its flag. Without --insecure
// certificates are needed, with it they would not be used.
func (c Config) ValidateServer(insecure bool, fault func(flag string, err error)) {
	c.validate(serverEnd, insecure, fault)
}

// ValidateClient does the same for a client.
func (c Config) ValidateClient(insecure bool, fault func(flag string, err error)) {
	c.validate(clientEnd, insecure, fault)
}

func (c Config) validate(end end, insecure bool, fault func(flag string, err error)) {
	switch {
	case insecure && c.IsSet():
		fault("insecure", errors.New("there are certificates too, which plain text has no use for: leave one of them out"))
	case insecure:
		return
	case !c.IsSet():
		fault("tls-cert", fmt.Errorf("must be set, with --tls-key and --%s, or else --spiffe-socket: who speaks is in certificates (`namewardctl pki` makes them); --insecure is plain text, on loopback alone", end))
	case c.SPIFFESocket != "" && (c.CertFile != "" || c.KeyFile != "" || c.ca() != ""):
		fault("spiffe-socket", fmt.Errorf("certificates come from it or from --tls-cert, --tls-key and --%s: leave one of them out", end))
	case c.SPIFFESocket == "":
		c.validateFiles(end, fault)
	}
	if c.TrustDomain != "" {
		if _, err := identity.ParseTrustDomain(c.TrustDomain); err != nil {
			fault("trust-domain", err)
		}
	}
}

func (c Config) validateFiles(end end, fault func(flag string, err error)) {
	for _, file := range []struct{ flag, path string }{{"tls-cert", c.CertFile}, {"tls-key", c.KeyFile}, {string(end), c.ca()}} {
		if file.path == "" {
			fault(file.flag, errors.New("must be set: the certificate, its key and the CAs of the other end go together"))
		}
	}
	if c.CAFile != "" && c.CAAlias != "" && c.CAFile != c.CAAlias {
		fault("server-ca", fmt.Errorf("is %q, and --client-ca, which means the same here, %q: give one of them", c.CAFile, c.CAAlias))
	}
}
