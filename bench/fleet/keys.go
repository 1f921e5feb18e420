package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/nameward/nameward/api/authority"
	"github.com/nameward/nameward/api/identity"
)

// keys are the certificates of a server, of its operator and of its nodes. None is plain text.
type keys struct {
	dir      string
	roots    *x509.CertPool
	operator tls.Certificate
	nodes    []tls.Certificate
}

func newKeys(nodes int) (k *keys, err error) {
	k = &keys{roots: x509.NewCertPool()}
	if k.dir, err = os.MkdirTemp("", "nameward-bench-keys-"); err != nil {
		return nil, err
	}
	now := time.Now()
	ca, err := authority.New("nameward", now)
	if err != nil {
		return nil, errors.Join(err, k.remove())
	}
	pair, err := ca.Pair()
	if err != nil {
		return nil, errors.Join(err, k.remove())
	}
	k.roots.AppendCertsFromPEM(pair.Certificate)
	server, _, err := ca.Issue(authority.Request{Role: identity.Server, Name: "127.0.0.1"}, now)
	if err != nil {
		return nil, errors.Join(err, k.remove())
	}
	for name, text := range map[string][]byte{"ca.crt": pair.Certificate, "server.crt": server.Certificate, "server.key": server.Key} {
		if err := os.WriteFile(filepath.Join(k.dir, name), text, 0o600); err != nil {
			return nil, errors.Join(err, k.remove())
		}
	}
	issue := func(role identity.Role, name string) (tls.Certificate, error) {
		pair, _, err := ca.Issue(authority.Request{Role: role, Name: name}, now)
		if err != nil {
			return tls.Certificate{}, err
		}
		return tls.X509KeyPair(pair.Certificate, pair.Key)
	}
	if k.operator, err = issue(identity.Admin, "bench"); err != nil {
		return nil, errors.Join(err, k.remove())
	}
	for node := range nodes {
		certificate, err := issue(identity.Node, fmt.Sprintf("node-%d", node))
		if err != nil {
			return nil, errors.Join(err, k.remove())
		}
		k.nodes = append(k.nodes, certificate)
	}
	return k, nil
}

func (k *keys) remove() error {
	if k == nil {
		return nil
	}
	return os.RemoveAll(k.dir)
}

// flags are those of the server.
func (k *keys) flags() []string {
	if k == nil {
		return []string{"--insecure"}
	}
	return []string{
		"--tls-cert", filepath.Join(k.dir, "server.crt"), "--tls-key", filepath.Join(k.dir, "server.key"),
		"--client-ca", filepath.Join(k.dir, "ca.crt"),
	}
}

func (k *keys) ofOperator() credentials.TransportCredentials {
	if k == nil {
		return insecure.NewCredentials()
	}
	return k.of(k.operator)
}

// ofNode are those of a node's agent.
func (k *keys) ofNode(node int) credentials.TransportCredentials {
	if k == nil {
		return insecure.NewCredentials()
	}
	return k.of(k.nodes[node])
}

func (k *keys) of(certificate tls.Certificate) credentials.TransportCredentials {
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: k.roots, Certificates: []tls.Certificate{certificate}})
}
