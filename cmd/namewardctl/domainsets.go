package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// listDomainSets reads the named domain sets, or all when no name is given. Large ones come without their
// domains.
func (p *program) listDomainSets(ctx context.Context, names []string) ([]*namewardv1.DomainSet, error) {
	connection, err := p.dialServer()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	client := namewardv1.NewDomainSetServiceClient(connection)
	if len(names) > 0 {
		return eachName(names, func(name string) (*namewardv1.DomainSet, error) {
			return client.GetDomainSet(ctx, &namewardv1.GetDomainSetRequest{Name: name})
		})
	}
	return allPages(func(token string) ([]*namewardv1.DomainSet, string, error) {
		page, err := client.ListDomainSets(ctx, &namewardv1.ListDomainSetsRequest{PageSize: pageSize, PageToken: token})
		return page.GetDomainSets(), page.GetNextPageToken(), err
	})
}

// wholeDomainSet reads a domain set with all of its domains, however many.
func (p *program) wholeDomainSet(ctx context.Context, name string) (*namewardv1.DomainSet, error) {
	return p.domainSetMatching(ctx, name, "")
}

// domainSetMatching reads a domain set with those of its domains that match a name, or all for "".
func (p *program) domainSetMatching(ctx context.Context, name, matching string) (*namewardv1.DomainSet, error) {
	sets, err := p.listDomainSets(ctx, []string{name})
	if err != nil {
		return nil, err
	}
	set := sets[0]
	if matching == "" && len(set.GetDomains()) == int(set.GetDomainCount()) {
		return set, nil
	}
	connection, err := p.dialServer()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	client := namewardv1.NewDomainSetServiceClient(connection)
	set.Domains, err = allPages(func(token string) ([]string, string, error) {
		page, err := client.ListDomains(ctx, &namewardv1.ListDomainsRequest{Name: name, PageSize: domainPageSize, PageToken: token, Matching: matching})
		if err == nil && page.GetEtag() != set.GetEtag() {
			err = fmt.Errorf("%s: has changed while it was read", name)
		}
		return page.GetDomains(), page.GetNextPageToken(), err
	})
	return set, err
}

// usersOf returns the names of the policies that name a domain set.
func (p *program) usersOf(ctx context.Context, domainSet string) ([]string, error) {
	policies, err := p.selectPolicies(ctx, nil, &namewardv1.PolicyFilter{DomainSet: domainSet})
	return namesOf(policies), err
}

func (p *program) domainSetsTable(sets []*namewardv1.DomainSet) *table {
	wide := p.options.output == formatWide
	t := &table{header: []string{"NAME", "DOMAINS", "AGE"}}
	if wide {
		t.header = append(t.header, "UPDATED", "DESCRIPTION")
	}
	for _, set := range sets {
		row := []cell{plain(set.GetName()), plain(strconv.Itoa(int(set.GetDomainCount()))), plain(p.ago(set.GetCreateTime()))}
		if wide {
			row = append(row, plain(p.ago(set.GetUpdateTime())), plain(set.GetDescription()))
		}
		t.add(row...)
	}
	return t
}

// describeDomainSet gives each domain a line of its own, so that long lists can be searched.
func (p *program) describeDomainSet(set *namewardv1.DomainSet, users []string) string {
	t := &table{}
	t.addPlain("Name", set.GetName())
	if set.GetDescription() != "" {
		t.addPlain("Description", set.GetDescription())
	}
	if len(users) == 0 {
		users = []string{none}
	}
	addList(t, "Named by", users)
	t.addPlain("Created", p.moment(set.GetCreateTime()))
	t.addPlain("Updated", p.moment(set.GetUpdateTime()))
	t.addPlain("Etag", set.GetEtag())
	t.addPlain("Domains", strconv.Itoa(int(set.GetDomainCount())))
	text := t.render(p.painter())
	switch {
	case len(set.GetDomains()) == 0 && set.GetDomainCount() > 0:
		return text + "\nNone of them matches.\n"
	case len(set.GetDomains()) == 0:
		return text + "\nNo domains: rules that name it match nothing by it.\n"
	}
	return text + "\n" + strings.Join(set.GetDomains(), "\n") + "\n"
}
