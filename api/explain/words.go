package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/ruleset"
)

// listed is how many items of a list a sentence names.
const listed = 5

// list names the first items, and says how many more there are.
func list[E any](items []E, text func(E) string) string {
	var words []string
	for _, item := range items[:min(len(items), listed)] {
		words = append(words, text(item))
	}
	switch more := len(items) - len(words); {
	case more > 0:
		return fmt.Sprintf("%s and %d more", strings.Join(words, ", "), more)
	case len(words) > 1:
		last := len(words) - 1
		return strings.Join(words[:last], ", ") + " and " + words[last]
	default:
		return strings.Join(words, "")
	}
}

// plural returns a count with its noun.
func plural(count int, one, many string) string {
	if count == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", count, many)
}

func prefixText(prefix netip.Prefix) string {
	if prefix.IsSingleIP() {
		return prefix.Addr().String()
	}
	return prefix.String()
}

func portsText(p ruleset.Ports) string {
	protocol := p.Protocol.ToProto().String()
	switch {
	case !p.Protocol.HasPorts() || p.First == 0 && p.Last == 65535:
		return protocol
	case p.First == p.Last:
		return fmt.Sprintf("%s/%d", protocol, p.First)
	default:
		return fmt.Sprintf("%s/%d-%d", protocol, p.First, p.Last)
	}
}

func protocolText(c ruleset.Connection) string {
	if !c.Protocol.HasPorts() {
		return c.Protocol.ToProto().String()
	}
	return fmt.Sprintf("%s/%d", c.Protocol.ToProto(), c.Port)
}

func timeText(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// ownerText names a name and how the address came by it.
func (o owner) text() string {
	switch {
	case o.former:
		return fmt.Sprintf("%s, an alias of %s in an earlier answer", o.name, o.asked)
	case o.asked != o.name:
		return fmt.Sprintf("%s, an alias of %s", o.name, o.asked)
	default:
		return o.name.String()
	}
}

// matchText says what of a rule's destinations matches.
func (j *judgement) matchText(match ruleset.Match) string {
	switch {
	case match.Every:
		return "it names no destination, so every one matches"
	case match.CIDR.IsValid():
		return fmt.Sprintf("%s contains %s", prefixText(match.CIDR), j.connection.Destination)
	}
	by := match.Pattern.String()
	if match.DomainSet != "" {
		by += " of " + match.DomainSet
	}
	if o, ok := j.owners.of(match.Name); ok {
		return fmt.Sprintf("%s matches %s", by, o.text())
	}
	return fmt.Sprintf("%s matches %s", by, match.Name)
}

// mismatchText says that none of a rule's destinations is the connection's, and names them.
func (j *judgement) mismatchText(rules *ruleset.RuleSet, r ruleset.Rule) string {
	var parts []string
	if r.ByName() {
		parts = append(parts, j.nameMismatch(rules, r))
	}
	if len(r.CIDRs) > 0 {
		cidrs := list(r.CIDRs, prefixText)
		if j.connection.Destination.IsValid() {
			parts = append(parts, fmt.Sprintf("no CIDR (%s) contains %s", cidrs, j.connection.Destination))
		} else {
			parts = append(parts, fmt.Sprintf("its CIDRs (%s) wait for an address", cidrs))
		}
	}
	return strings.Join(parts, ", ")
}

func (j *judgement) nameMismatch(rules *ruleset.RuleSet, r ruleset.Rule) string {
	if len(j.connection.Names) == 0 {
		return fmt.Sprintf("%s is no live mapping of any name%s", j.connection.Destination, j.endedMatch(rules, r))
	}
	var parts []string
	if len(r.Domains) > 0 {
		parts = append(parts, "no domain ("+list(r.Domains, domain.Pattern.String)+")")
	}
	if len(r.DomainSets) > 0 {
		parts = append(parts, "no domain of "+list(r.DomainSets, func(name string) string {
			set, _ := rules.DomainSet(name)
			return fmt.Sprintf("%s (%s)", name, plural(len(set.Domains), "pattern", "patterns"))
		}))
	}
	text := fmt.Sprintf("%s matches %s", strings.Join(parts, " and "), list(j.connection.Names, domain.Name.String))
	return text + j.apexHint(rules, r) + j.endedMatch(rules, r)
}

// apex is a name, with the pattern of all below it.
type apex struct {
	name  domain.Name
	below domain.Pattern
}

// apexHint helps with the commonest slip: `*.example.com` is not example.com.
func (j *judgement) apexHint(rules *ruleset.RuleSet, r ruleset.Rule) string {
	if j.apexes == nil {
		j.apexes = []apex{}
		for _, name := range j.connection.Names {
			if below, err := domain.ParsePattern("*." + name.String()); err == nil {
				j.apexes = append(j.apexes, apex{name, below})
			}
		}
	}
	for _, a := range j.apexes {
		if slices.Contains(r.Domains, a.below) {
			return fmt.Sprintf("; %s matches names below %s alone", a.below, a.name)
		}
		for _, set := range r.DomainSets {
			if s, _ := rules.DomainSet(set); s.Has(a.below) {
				return fmt.Sprintf("; %s of %s matches names below %s alone", a.below, set, a.name)
			}
		}
	}
	return ""
}

// endedMatch says which name would have matched while it was one of the address.
func (j *judgement) endedMatch(rules *ruleset.RuleSet, r ruleset.Rule) string {
	for _, o := range j.owners.ended {
		if match, ok := rules.MatchName(r, o.name); ok {
			return fmt.Sprintf("; %s matched %s until %s, when that mapping ended", match.Pattern, o.text(), timeText(o.expiresAt))
		}
	}
	return ""
}

// ruleText says why a rule does or does not match.
func (j *judgement) ruleText(rules *ruleset.RuleSet, evaluation ruleset.Evaluation) string {
	rule := rules.Policies[evaluation.Policy].Rules[evaluation.Rule]
	if evaluation.Outcome == ruleset.OtherDestination {
		return j.mismatchText(rules, rule)
	}
	text := j.matchText(evaluation.Match)
	if len(rule.Ports) == 0 {
		return text
	}
	ports := list(rule.Ports, portsText)
	if evaluation.Outcome == ruleset.OtherPorts {
		return fmt.Sprintf("%s, but %s is none of its ports (%s)", text, protocolText(j.connection), ports)
	}
	return fmt.Sprintf("%s, and %s is one of its ports (%s)", text, protocolText(j.connection), ports)
}
