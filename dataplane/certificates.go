package dataplane

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/transport"
	"github.com/nameward/nameward/dataplane/preflight"
)

const (
	certificateName = "certificate"
	keyName         = "key of the certificate"
	authorityName   = "CAs of the policy servers"
)

// checkCertificates judges what the agent would connect with. Without any it starts and enforces, and is not heard.
func checkCertificates(ctx context.Context, cfg Config, now time.Time) []Requirement {
	if cfg.Insecure || !cfg.TLS.IsSet() {
		return nil
	}
	m, err := cfg.TLS.LoadClient(ctx)
	if err != nil {
		return []Requirement{preflight.Fail(certificateName, err.Error(), cfg.TLS.Remedy())}
	}
	requirements := []Requirement{cfg.judgeCertificate(m, now), judgeAuthorities(cfg, m, now)}
	if cfg.TLS.KeyFile != "" {
		requirements = append(requirements, judgeKeyFile(cfg.TLS.KeyFile))
	}
	return requirements
}

func (c Config) judgeCertificate(m *transport.Material, now time.Time) Requirement {
	detail := fmt.Sprintf("of %s, until %s", m.ID, m.Expiry().UTC().Format(time.RFC3339))
	name, ok := nodeNameOf(m)
	id, err := node.ParseID(c.NodeName)
	switch {
	case !ok, err == nil && id.String() != name:
		if err == nil {
			detail += ", and the node is " + id.String()
		}
		return preflight.Fail(certificateName, detail, misnamedRemedy)
	case now.Before(m.Leaf.NotBefore):
		return preflight.Fail(certificateName, fmt.Sprintf("%s, but not before %s", detail, m.Leaf.NotBefore.UTC().Format(time.RFC3339)), "set the clock of this machine")
	case !now.Before(m.Expiry()):
		return preflight.Fail(certificateName, detail+": it has expired", c.TLS.Renewal())
	case m.EndsSoon(now):
		return preflight.Warn(certificateName, detail+": it ends soon", c.TLS.Renewal())
	}
	return preflight.Found(certificateName, detail)
}

func judgeAuthorities(cfg Config, m *transport.Material, now time.Time) Requirement {
	detail := fmt.Sprintf("%d, of the trust domain %s; the first ends at %s", len(m.Authorities), m.TrustDomain, m.AuthorityExpiry().UTC().Format(time.RFC3339))
	switch {
	case !now.Before(m.AuthorityExpiry()):
		return preflight.Fail(authorityName, detail+": it has expired", cfg.TLS.AuthorityRenewal())
	case !m.OwnAuthority():
		return preflight.Warn(authorityName, detail+"; the node's certificate is of another CA, "+m.Leaf.Issuer.String(), "see that the policy servers know that CA (their --client-ca); where all have one CA, give this agent its file")
	}
	return preflight.Found(authorityName, detail)
}

// judgeKeyFile warns of a key that others may read: who has it is this node.
func judgeKeyFile(path string) Requirement {
	info, err := os.Stat(path)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		return preflight.Warn(keyName, fmt.Sprintf("%s has mode %#o", path, info.Mode().Perm()), "chmod 600 "+path+": who reads it can be this node")
	}
	return preflight.Judge(keyName, path, err, "put it there")
}
