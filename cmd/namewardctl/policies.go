package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

// listPolicies reads the named policies, or all when no name is given.
func (p *program) listPolicies(ctx context.Context, names []string) ([]*namewardv1.Policy, error) {
	return p.selectPolicies(ctx, names, nil)
}

// selectPolicies reads the named policies, or those that the filter selects when no name is given.
func (p *program) selectPolicies(ctx context.Context, names []string, filter *namewardv1.PolicyFilter) ([]*namewardv1.Policy, error) {
	connection, err := p.dialServer()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	client := namewardv1.NewPolicyServiceClient(connection)
	if len(names) > 0 {
		return eachName(names, func(name string) (*namewardv1.Policy, error) {
			return client.GetPolicy(ctx, &namewardv1.GetPolicyRequest{Name: name})
		})
	}
	return allPages(func(token string) ([]*namewardv1.Policy, string, error) {
		page, err := client.ListPolicies(ctx, &namewardv1.ListPoliciesRequest{PageSize: pageSize, PageToken: token, Filter: filter})
		return page.GetPolicies(), page.GetNextPageToken(), err
	})
}

func (p *program) policiesTable(policies []*namewardv1.Policy) *table {
	wide := p.options.output == formatWide
	t := &table{header: []string{"NAME", "MODE", "PRIORITY", "RULES", "WORKLOADS", "NODES", "AGE"}}
	if wide {
		t.header = append(t.header, "UPDATED", "DESCRIPTION")
	}
	for _, policy := range policies {
		workloads := workloadTexts(policy)
		if !wide {
			workloads = abridge(workloads)
		}
		row := []cell{
			plain(policy.GetName()), modeCell(policy.GetMode()), plain(strconv.Itoa(int(policy.GetPriority()))),
			plain(strconv.Itoa(len(policy.GetRules()))), plain(strings.Join(workloads, " ")),
			plain(labelsText(policy.GetNodeSelector().GetMatchLabels(), "all")), plain(p.ago(policy.GetCreateTime())),
		}
		if wide {
			row = append(row, plain(p.ago(policy.GetUpdateTime())), plain(policy.GetDescription()))
		}
		t.add(row...)
	}
	return t
}

func (p *program) describePolicy(policy *namewardv1.Policy) string {
	t := &table{}
	t.addPlain("Name", policy.GetName())
	if policy.GetDescription() != "" {
		t.addPlain("Description", policy.GetDescription())
	}
	t.add(plain("Mode"), modeCell(policy.GetMode()))
	t.addPlain("Priority", strconv.Itoa(int(policy.GetPriority())))
	t.addPlain("Nodes", labelsText(policy.GetNodeSelector().GetMatchLabels(), "all"))
	addList(t, "Workloads", workloadTexts(policy))
	t.add(plain("Established"), establishedCell(policy.GetEstablished()))
	t.addPlain("Created", p.moment(policy.GetCreateTime()))
	t.addPlain("Updated", p.moment(policy.GetUpdateTime()))
	t.addPlain("Etag", policy.GetEtag())

	rules := &table{header: []string{"RULE", "ACTION", "DESTINATION", "PORTS", "QUESTIONS"}}
	for i, rule := range policy.GetRules() {
		addRule(rules, i, rule)
	}
	text := t.render(p.painter())
	if len(rules.rows) == 0 {
		return text + "\nNo rules: what no other policy allows is denied.\n"
	}
	return text + "\n" + rules.render(p.painter())
}

// addRule gives each destination a line of its own, so that long lists can be searched.
func addRule(t *table, position int, rule *namewardv1.Rule) {
	destinations := slices.Concat(rule.GetDomains(), rule.GetDomainSets(), rule.GetCidrs())
	if len(destinations) == 0 {
		destinations = []string{"any"}
	}
	ports := portTexts(rule.GetPorts())
	for i := range max(len(destinations), len(ports)) {
		row := []cell{plain(""), plain(""), plain(""), plain(""), plain("")}
		if i == 0 {
			row[0], row[1], row[4] = plain(strconv.Itoa(position)), actionCell(rule.GetAction()), questionsCell(rule.GetQueryAction())
		}
		if i < len(destinations) {
			row[2] = plain(destinations[i])
		}
		if i < len(ports) {
			row[3] = plain(ports[i])
		}
		t.add(row...)
	}
}

func portTexts(ports []*namewardv1.Port) []string {
	if len(ports) == 0 {
		return []string{"any"}
	}
	texts := make([]string, len(ports))
	for i, port := range ports {
		texts[i] = port.GetProtocol().String()
		if port.GetPort() != 0 {
			texts[i] += fmt.Sprintf("/%d", port.GetPort())
		}
		if port.GetEndPort() != 0 {
			texts[i] += fmt.Sprintf("-%d", port.GetEndPort())
		}
	}
	return texts
}

// workloadTexts shows what a policy selects; the parts of one workload, which must all match, are
// joined by "&".
func workloadTexts(policy *namewardv1.Policy) []string {
	if len(policy.GetWorkloads()) == 0 {
		return []string{"host"}
	}
	texts := make([]string, 0, len(policy.GetWorkloads()))
	for _, workload := range policy.GetWorkloads() {
		var parts []string
		if cidrs := workload.GetCidrs(); len(cidrs) > 0 {
			parts = append(parts, strings.Join(cidrs, ","))
		}
		if workload.GetInterface() != "" {
			parts = append(parts, "interface:"+workload.GetInterface())
		}
		if workload.Uid != nil {
			parts = append(parts, fmt.Sprintf("uid:%d", workload.GetUid()))
		}
		if workload.GetCgroup() != "" {
			parts = append(parts, "cgroup:"+workload.GetCgroup())
		}
		if workload.GetSystemdUnit() != "" {
			parts = append(parts, "unit:"+workload.GetSystemdUnit())
		}
		if workload.GetHost() {
			parts = append(parts, "host")
		}
		texts = append(texts, strings.Join(parts, "&"))
	}
	return texts
}

// abridge keeps the first few texts and says how many it left out.
func abridge(texts []string) []string {
	const shown = 3
	if len(texts) <= shown {
		return texts
	}
	return append(slices.Clone(texts[:shown]), fmt.Sprintf("(and %d more)", len(texts)-shown))
}

func labelsText(labels map[string]string, empty string) string {
	if len(labels) == 0 {
		return empty
	}
	pairs := make([]string, 0, len(labels))
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

// addList puts the first of texts beside a title and the others below it.
func addList(t *table, title string, texts []string) {
	for _, text := range texts {
		t.addPlain(title, text)
		title = ""
	}
}

func modeCell(mode namewardv1.Policy_Mode) cell {
	switch mode {
	case namewardv1.Policy_AUDIT:
		return cell{"AUDIT", styleWarning}
	case namewardv1.Policy_DISABLED:
		return cell{"DISABLED", styleFaint}
	case namewardv1.Policy_MODE_UNSPECIFIED, namewardv1.Policy_ENFORCE:
		return plain("ENFORCE")
	}
	return plain(mode.String())
}

func establishedCell(established namewardv1.Policy_Established) cell {
	switch established {
	case namewardv1.Policy_ESTABLISHED_UNSPECIFIED, namewardv1.Policy_CUT:
		return plain("CUT")
	case namewardv1.Policy_KEEP:
		return cell{"KEEP", styleWarning}
	}
	return plain(established.String())
}

func questionsCell(action namewardv1.Rule_QueryAction) cell {
	switch action {
	case namewardv1.Rule_QUERY_ACTION_UNSPECIFIED, namewardv1.Rule_RESOLVE:
		return plain("RESOLVE")
	case namewardv1.Rule_REFUSE:
		return cell{"REFUSE", styleBad}
	}
	return plain(action.String())
}

func actionCell(action namewardv1.Rule_Action) cell {
	switch action {
	case namewardv1.Rule_ALLOW:
		return cell{"ALLOW", styleGood}
	case namewardv1.Rule_DENY:
		return cell{"DENY", styleBad}
	case namewardv1.Rule_ACTION_UNSPECIFIED:
		return plain(none)
	}
	return plain(action.String())
}
