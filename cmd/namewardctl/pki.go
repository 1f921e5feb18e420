package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nameward/nameward/api/authority"
	"github.com/nameward/nameward/api/identity"
)

const defaultTrustDomain = "nameward"

func (p *program) pkiCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "pki",
		Short: "Make a private CA, and certificates for a first fleet",
		Long: `A private CA in a directory, and certificates of it: who somebody is stands in the certificate, as the
SPIFFE ID spiffe://TRUST-DOMAIN/ROLE/NAME. Keep the directory where only you can read it: who has its
ca.key can be anybody. Each node gets its own certificate and key, and ca.crt.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return usagef("what to do must be given: init, issue or renew") },
	}
	command.AddCommand(p.pkiInitCommand(), p.pkiIssueCommand(), p.pkiRenewCommand())
	return command
}

// certificateFiles is what a pki command made.
type certificateFiles struct {
	Certificate string    `json:"certificate"`
	Key         string    `json:"key"`
	Identity    string    `json:"identity"`
	ExpireTime  time.Time `json:"expireTime"`
}

func (p *program) printCertificates(made []certificateFiles) error {
	if p.options.output.structured() {
		encoded, err := json.Marshal(map[string][]certificateFiles{"certificates": made})
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		return p.printDocument(encoded)
	}
	t := &table{header: []string{"CERTIFICATE", "KEY", "IDENTITY", "EXPIRES"}}
	for _, files := range made {
		t.addPlain(files.Certificate, files.Key, files.Identity, files.ExpireTime.Format(time.DateOnly))
	}
	return p.print(t.render(p.painter()))
}

// bindDir declares --dir.
func bindDir(command *cobra.Command, dir *string) {
	command.Flags().StringVar(dir, "dir", "", "directory of the CA")
	if err := command.MarkFlagDirname("dir"); err != nil {
		panic(err) // there is no such flag
	}
}

func (p *program) pkiInitCommand() *cobra.Command {
	var dir string
	command := &cobra.Command{
		Use: "init --dir DIR", Short: "Make a private CA",
		Long: "Makes DIR/ca.crt, which servers, agents and operators trust, and DIR/ca.key, which nobody but you may have. It never\noverwrites one. The CA is good for ten years.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return p.pkiInit(dir) },
	}
	bindDir(command, &dir)
	p.options.bindOutput(command)
	return command
}

func (p *program) pkiInit(dir string) error {
	if dir == "" {
		return usagef("--dir: must be set")
	}
	domain := p.options.tls.TrustDomain
	if domain == "" {
		domain = defaultTrustDomain
	}
	if _, err := identity.ParseTrustDomain(domain); err != nil {
		return usagef("--trust-domain: %w", err)
	}
	ca, err := authority.New(domain, p.now())
	if err != nil {
		return err //nolint:wrapcheck // it says what
	}
	pair, err := ca.Pair()
	if err != nil {
		return err //nolint:wrapcheck // it says what
	}
	if err := p.makePrivate(dir); err != nil {
		return err
	}
	files := pairPaths(dir, authorityName)
	if err := writeNew(files, pair); err != nil {
		return err
	}
	return p.printCertificates([]certificateFiles{{files.certificate, files.key, "spiffe://" + domain, ca.Expiry()}})
}

// request is what pki issue is asked for.
type request struct {
	dir, role, name string
	dns, ips        []string
	lifetime        time.Duration
}

func (p *program) pkiIssueCommand() *cobra.Command {
	var r request
	command := &cobra.Command{
		Use: "issue --dir DIR --role ROLE --name NAME", Short: "Issue a certificate",
		Long: `Makes DIR/ROLE-NAME.crt and DIR/ROLE-NAME.key. A server's certificate is good for its name (a DNS name or an
address), for what --dns and --ip add, and for localhost, from where it is administered. A node's name is that
by which the fleet knows it.`,
		Example: `  namewardctl pki issue --dir pki --role server --name policy.example.org --ip 192.0.2.7
  namewardctl pki issue --dir pki --role node --name web-1
  namewardctl pki issue --dir pki --role admin --name ada --lifetime 720h`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return p.pkiIssue(r) },
	}
	flags := command.Flags()
	bindDir(command, &r.dir)
	bindRole(command, &r.role)
	flags.StringVar(&r.name, "name", "", "who it is for: a server's host name, a node's id, a person or program")
	flags.StringSliceVar(&r.dns, "dns", nil, "another DNS name that a server is reached by; repeatable")
	flags.StringSliceVar(&r.ips, "ip", nil, "another address that a server is reached by; repeatable")
	flags.DurationVar(&r.lifetime, "lifetime", authority.LeafLifetime, "how long it is good")
	p.options.bindOutput(command)
	return command
}

func bindRole(command *cobra.Command, role *string) {
	command.Flags().StringVar(role, "role", "", "server, node, admin, editor or viewer")
	if err := command.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(
		[]string{"server", "node", "admin", "editor", "viewer"}, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}

// parse returns every fault of a request.
func (r request) parse() (authority.Request, error) {
	wanted := authority.Request{Role: identity.Role(r.role), Name: r.name, DNS: r.dns, Lifetime: r.lifetime}
	var errs []error
	for flag, value := range map[string]string{"dir": r.dir, "name": r.name} {
		if value == "" {
			errs = append(errs, usagef("--%s: must be set", flag))
		}
	}
	if _, err := identity.ParseRole(r.role); err != nil {
		errs = append(errs, usagef("--role: %w", err))
	}
	for _, text := range r.ips {
		ip, err := netip.ParseAddr(text)
		if err != nil {
			errs = append(errs, usagef("--ip: %q is no address", text))
			continue
		}
		wanted.IPs = append(wanted.IPs, ip)
	}
	if r.lifetime <= 0 {
		errs = append(errs, usagef("--lifetime: %v is not more than zero", r.lifetime))
	}
	return wanted, errors.Join(errs...)
}

func (p *program) pkiIssue(r request) error {
	wanted, err := r.parse()
	if err != nil {
		return err
	}
	ca, err := readAuthority(r.dir)
	if err != nil {
		return err
	}
	pair, certificate, err := ca.Issue(wanted, p.now())
	if err != nil {
		return usageError{err}
	}
	files := pairPaths(r.dir, wanted.FileName())
	if err := writeNew(files, pair); err != nil {
		return err
	}
	return p.printCertificates([]certificateFiles{files.made(certificate)})
}

func (p *program) pkiRenewCommand() *cobra.Command {
	var (
		r          request
		all, force bool
	)
	command := &cobra.Command{
		Use: "renew --dir DIR (--role ROLE --name NAME | --all)", Short: "Renew certificates of which less than a third of their life is left",
		Long: `Puts a new certificate with a new key in the place of an old one: for the same one, as good as long, reached by
the same names. Take the files to where they are used: server and agents take them up by themselves.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if !command.Flags().Changed("lifetime") {
				r.lifetime = 0
			}
			return p.pkiRenew(r, all, force)
		},
	}
	flags := command.Flags()
	bindDir(command, &r.dir)
	bindRole(command, &r.role)
	flags.StringVar(&r.name, "name", "", "whose it is")
	flags.BoolVar(&all, "all", false, "all that the CA issued into its directory")
	flags.BoolVar(&force, "force", false, "also those that have more of their life left")
	flags.DurationVar(&r.lifetime, "lifetime", 0, "how long the new ones are good (default: as long as the old ones)")
	p.options.bindOutput(command)
	return command
}

func (p *program) pkiRenew(r request, all, force bool) error {
	one := r.role != "" && r.name != ""
	switch {
	case r.dir == "":
		return usagef("--dir: must be set")
	case all == one || all && r.role+r.name != "":
		return usagef("give --role and --name, or --all")
	case r.lifetime < 0:
		return usagef("--lifetime: %v is less than zero", r.lifetime)
	}
	ca, err := readAuthority(r.dir)
	if err != nil {
		return err
	}
	paths := []string{pairPaths(r.dir, authority.Request{Role: identity.Role(r.role), Name: r.name}.FileName()).certificate}
	if all {
		if paths, err = filepath.Glob(filepath.Join(r.dir, "*"+certificateSuffix)); err != nil {
			return fmt.Errorf("list certificates: %w", err)
		}
	}
	made, errs := []certificateFiles{}, []error(nil)
	for _, path := range paths {
		if filepath.Base(path) == authorityName+certificateSuffix {
			continue
		}
		files, err := p.renewOne(ca, path, r.lifetime, force)
		switch {
		case err != nil:
			errs = append(errs, err)
		case files != nil:
			made = append(made, *files)
		}
	}
	return errors.Join(append(errs, p.printRenewed(made))...)
}

func (p *program) printRenewed(made []certificateFiles) error {
	if len(made) == 0 && !p.options.output.structured() {
		p.complain("Nothing renewed.")
		return nil
	}
	return p.printCertificates(made)
}

// renewOne returns nil for a certificate that is not due.
func (p *program) renewOne(ca *authority.Authority, path string, lifetime time.Duration, force bool) (*certificateFiles, error) {
	old, err := readCertificate(path)
	if err != nil {
		return nil, err
	}
	if !force && !authority.Due(old, p.now()) {
		p.complain(fmt.Sprintf("%s: good until %s, not renewed (--force)", path, old.NotAfter.UTC().Format(time.DateOnly)))
		return nil, nil
	}
	wanted, err := ca.RequestOf(old)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if lifetime > 0 {
		wanted.Lifetime = lifetime
	}
	pair, certificate, err := ca.Issue(wanted, p.now())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	files := pathsOf(path)
	if err := replace(files, pair); err != nil {
		return nil, err
	}
	made := files.made(certificate)
	return &made, nil
}
