package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// addAtOnce is how many domains the API adds or removes in one call.
const addAtOnce = 100_000

type importOptions struct {
	add, remove, subdomains, strict, dryRun bool
}

func (p *program) importCommand() *cobra.Command {
	var o importOptions
	command := &cobra.Command{
		Use:   "import domainSets/NAME FILE...",
		Short: "Fill a domain set from lists of domains",
		Long: `import makes a domain set equal to the domains of the files, at once; "-" is standard input. With
--add it adds them to what the set has, with --remove it removes them, 100,000 at a time. Each line is read
as what it is, whatever the others are:

  example.com, *.example.com      a domain pattern
  .example.com                    example.com and *.example.com
  0.0.0.0 example.com www.a.test  a line of a hosts file: each name, not those of the machine itself
  ||example.com^                  an adblock rule: example.com and *.example.com

Empty lines and comments (# and !) are passed over. Every other line is left out and said with its reason, on
standard error: exceptions and adblock rules that are about more or less than a whole domain cannot be said
by a set.`,
		Example: `  namewardctl import domainSets/ads hosts.txt easylist.txt
  curl -s https://lists.example/malware.txt | namewardctl import domainSets/malware -
  echo pypi.org | namewardctl import --add domainSets/saas -`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(command *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault // files
			}
			return p.completeNames(domainSetsCollection)(command, args, begun)
		},
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("the domain set and at least one file must be given: import domainSets/NAME FILE")
			}
			if o.add && o.remove {
				return usagef("--add and --remove: give one of them")
			}
			names, err := parseNames(args[:1], domainSetsCollection)
			if err != nil {
				return usageError{err}
			}
			return p.importDomains(command.Context(), names[0].String(), args[1:], o)
		},
	}
	flags := command.Flags()
	flags.BoolVar(&o.add, "add", false, "add to what the set has")
	flags.BoolVar(&o.remove, "remove", false, "remove from what the set has")
	flags.BoolVar(&o.subdomains, "subdomains", false, "with each name of a plain list or a hosts file also all below it")
	flags.BoolVar(&o.strict, "strict", false, "fail, and write nothing, when a line is left out")
	flags.BoolVar(&o.dryRun, "dry-run", false, "read, and let the server check, but write nothing")
	p.options.bindOutput(command)
	return command
}

func (p *program) importDomains(ctx context.Context, name string, paths []string, o importOptions) error {
	connection, err := p.dialServer()
	if err != nil {
		return err
	}
	defer connection.Close()
	list := &domainList{subdomains: o.subdomains, seen: map[string]struct{}{}}
	var errs []error
	for _, path := range paths {
		source, data, err := p.readSource(path)
		if err != nil {
			errs = append(errs, fmt.Errorf("read list: %w", err))
			continue
		}
		list.read(source, string(data))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.complainLeftOut(list)
	switch {
	case o.strict && len(list.leftOut) > 0:
		return errors.New("lines were left out (--strict): nothing was imported")
	case len(list.domains) == 0:
		return errors.New("there is no domain in it: nothing was imported")
	}
	slices.Sort(list.domains)
	i := &importer{sets: namewardv1.NewDomainSetServiceClient(connection), name: name, dryRun: o.dryRun, progress: p.newProgress("domains", len(list.domains))}
	switch {
	case o.add:
		err = i.add(ctx, list.domains)
	case o.remove:
		err = i.remove(ctx, list.domains)
	default:
		err = i.replace(ctx, list.domains)
	}
	i.progress.end()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return p.printImport(i, list)
}

// importer writes domains into a set, and counts what that changes.
type importer struct {
	sets           namewardv1.DomainSetServiceClient
	name           string
	dryRun         bool
	progress       *progress
	added, removed int
	set            *namewardv1.DomainSet
}

func (i *importer) replace(ctx context.Context, domains []string) error {
	stream, err := i.sets.ReplaceDomains(ctx)
	if err != nil {
		return err
	}
	request := &namewardv1.ReplaceDomainsRequest{Name: i.name, AllowMissing: true, ValidateOnly: i.dryRun}
	for part := range slices.Chunk(domains, domainPageSize) {
		request.Domains = part
		// The end of the stream is the server's answer, which comes with its cause.
		if err := stream.Send(request); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		i.progress.step(len(part))
		request = &namewardv1.ReplaceDomainsRequest{}
	}
	response, err := stream.CloseAndRecv()
	i.added, i.removed, i.set = int(response.GetAddedCount()), int(response.GetRemovedCount()), response.GetDomainSet()
	return err
}

func (i *importer) add(ctx context.Context, domains []string) error {
	for part := range slices.Chunk(domains, addAtOnce) {
		response, err := i.sets.AddDomains(ctx, &namewardv1.AddDomainsRequest{Name: i.name, Domains: part, ValidateOnly: i.dryRun})
		if err != nil {
			return err
		}
		i.added, i.set = i.added+int(response.GetAddedCount()), response.GetDomainSet()
		i.progress.step(len(part))
	}
	return nil
}

func (i *importer) remove(ctx context.Context, domains []string) error {
	for part := range slices.Chunk(domains, addAtOnce) {
		response, err := i.sets.RemoveDomains(ctx, &namewardv1.RemoveDomainsRequest{Name: i.name, Domains: part, ValidateOnly: i.dryRun})
		if err != nil {
			return err
		}
		i.removed, i.set = i.removed+int(response.GetRemovedCount()), response.GetDomainSet()
		i.progress.step(len(part))
	}
	return nil
}

// importReport is what a script reads of an import.
type importReport struct {
	Name         string        `json:"name"`
	DryRun       bool          `json:"dryRun"`
	DomainCount  int32         `json:"domainCount"`
	AddedCount   int           `json:"addedCount"`
	RemovedCount int           `json:"removedCount"`
	LeftOut      []leftOutLine `json:"leftOut"`
}

func (p *program) printImport(i *importer, list *domainList) error {
	if p.options.output.structured() {
		report := importReport{
			Name: i.name, DryRun: i.dryRun, DomainCount: i.set.GetDomainCount(), AddedCount: i.added, RemovedCount: i.removed,
			LeftOut: append([]leftOutLine{}, list.leftOut...),
		}
		encoded, err := json.Marshal(report)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		return p.printDocument(encoded)
	}
	note := ""
	if i.dryRun {
		note = " (dry run)"
	}
	return p.print(fmt.Sprintf("%s imported: %s, %s more and %s fewer than before%s\n", i.name,
		count(int(i.set.GetDomainCount()), "domain"), thousands(i.added), thousands(i.removed), note))
}

// leftOutShown is how many lines are said of each reason; -o json has them all.
const leftOutShown = 5

// complainLeftOut says which lines were left out, by reason.
func (p *program) complainLeftOut(list *domainList) {
	byReason, order := map[string][]leftOutLine{}, []string{}
	for _, line := range list.leftOut {
		if len(byReason[line.Reason]) == 0 {
			order = append(order, line.Reason)
		}
		byReason[line.Reason] = append(byReason[line.Reason], line)
	}
	for _, reason := range order {
		lines := byReason[reason]
		text := count(len(lines), "line") + " left out: " + reason
		for _, line := range lines[:min(len(lines), leftOutShown)] {
			text += fmt.Sprintf("\n  %s:%d: %s", line.Source, line.Line, line.Text)
		}
		if more := len(lines) - leftOutShown; more > 0 {
			text += fmt.Sprintf("\n  and %s more", thousands(more))
		}
		p.complain(text)
	}
}

func count(n int, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return thousands(n) + " " + noun
}

// thousands writes a number with commas.
func thousands(n int) string {
	digits := fmt.Sprint(n)
	var out strings.Builder
	for i, digit := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			out.WriteByte(',')
		}
		out.WriteRune(digit)
	}
	return out.String()
}
