package controlplane

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/pflag"
)

func (c *Config) bindEtcd(flags *pflag.FlagSet) {
	flags.StringSliceVar(&c.EtcdEndpoints, "etcd-endpoints", c.EtcdEndpoints, "members of the etcd cluster, HOST:PORT or URL, with commas between; with --store etcd")
	flags.StringVar(&c.EtcdPrefix, "etcd-prefix", c.EtcdPrefix, "prefix of all keys in etcd")
	c.BindEtcdTLS(flags)
	flags.StringVar(&c.Advertise, "advertise", c.Advertise, "address at which the other servers on the same etcd reach this one, HOST:PORT; empty for that of --listen")
}

// BindEtcdTLS declares the flags that say how etcd is spoken to.
func (c *Config) BindEtcdTLS(flags *pflag.FlagSet) {
	flags.StringVar(&c.EtcdCA, "etcd-ca", c.EtcdCA, "file with the certificates that those of etcd are signed by; without it the connection is plain text")
	flags.StringVar(&c.EtcdCert, "etcd-cert", c.EtcdCert, "file with the certificate by which etcd knows this server")
	flags.StringVar(&c.EtcdKey, "etcd-key", c.EtcdKey, "file with the key of --etcd-cert")
}

// validateEtcd says what is wrong with the storage in etcd.
func (c Config) validateEtcd(fault func(flag, format string, args ...any)) {
	if len(c.EtcdEndpoints) == 0 {
		fault("etcd-endpoints", "must be set with --store etcd")
	}
	for _, endpoint := range c.EtcdEndpoints {
		if err := checkEndpoint(endpoint); err != nil {
			fault("etcd-endpoints", "%w", err)
		}
	}
	if !strings.HasPrefix(c.EtcdPrefix, "/") || !strings.HasSuffix(c.EtcdPrefix, "/") || len(c.EtcdPrefix) < 3 {
		fault("etcd-prefix", "%q does not begin and end with / and have a name between", c.EtcdPrefix)
	}
	if (c.EtcdCert == "") != (c.EtcdKey == "") {
		fault("etcd-cert", "it and --etcd-key are set both or none")
	}
	if c.EtcdCert != "" && c.EtcdCA == "" {
		fault("etcd-ca", "must be set with --etcd-cert")
	}
	if host, port, err := net.SplitHostPort(c.advertised()); err != nil || port == "0" || isWildcard(host) {
		fault("advertise", "%q is no HOST:PORT at which other servers reach this one: set it", c.advertised())
	}
}

// validateBolt says what there is of a storage that would not be used: who names a cluster means to use it.
func (c Config) validateBolt(fault func(flag, format string, args ...any)) {
	if len(c.EtcdEndpoints) > 0 {
		fault("etcd-endpoints", "are %s, and --store is bolt, which does not use them: set --store etcd, or leave them out", strings.Join(c.EtcdEndpoints, ","))
	}
	for _, file := range []struct{ flag, path string }{{"etcd-ca", c.EtcdCA}, {"etcd-cert", c.EtcdCert}, {"etcd-key", c.EtcdKey}} {
		if file.path != "" {
			fault(file.flag, "is %q, and --store is bolt, which does not use it: set --store etcd, or leave it out", file.path)
		}
	}
}

func isWildcard(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}

func checkEndpoint(endpoint string) error {
	host := endpoint
	if strings.Contains(endpoint, "://") {
		parsed, err := url.Parse(endpoint)
		if err != nil || parsed.Scheme != "http" && parsed.Scheme != "https" {
			return fmt.Errorf("%q is neither HOST:PORT nor an http or https URL", endpoint)
		}
		host = parsed.Host
	}
	if _, _, err := net.SplitHostPort(host); err != nil {
		return fmt.Errorf("%q has no HOST:PORT", endpoint)
	}
	return nil
}

// advertised is the address that other servers are told.
func (c Config) advertised() string {
	if c.Advertise != "" {
		return c.Advertise
	}
	return c.Listen
}

// etcdTLS returns how etcd is spoken to; nil for plain text. The certificate is read anew for each connection.
func (c Config) etcdTLS() (*tls.Config, error) {
	if c.EtcdCA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.EtcdCA)
	if err != nil {
		return nil, fmt.Errorf("etcd-ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("etcd-ca: %s has no certificate", c.EtcdCA)
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if c.EtcdCert != "" {
		if _, err := tls.LoadX509KeyPair(c.EtcdCert, c.EtcdKey); err != nil {
			return nil, fmt.Errorf("etcd-cert: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.EtcdCert, c.EtcdKey)
			return &pair, err //nolint:wrapcheck // names the file
		}
	}
	return config, nil
}
