package netfilter

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/nameward/nameward/dataplane/preflight"
)

// markUse is what a rule does with our bit of the mark.
type markUse struct {
	sets     bool // on the packet: it would be rejected as if denied
	tests    bool // takes a packet that carries our bit for its own
	lacks    bool // takes no packet that carries it
	writesCt bool // into the mark of the connection
	savesCt  bool // from the packet
	readsCt  bool // from the mark of the connection onto the packet
}

// Conflicts looks through the rules of others, in both backends, for those that use what is ours: the bit of
// the mark, and the labels of connections. Rules that clear the whole mark are none: a denial travels by the
// label too.
func Conflicts(ctx context.Context, wanted string, mark uint32) []preflight.Requirement {
	rules, err := allForeignRules(ctx)
	if err != nil {
		return []preflight.Requirement{preflight.Warn("rules of others", err.Error(), "see what fails, and check again: rules that were not read may use what the agent uses")}
	}
	all := slices.Concat(rules[NFT], rules[Legacy])
	return []preflight.Requirement{judgeBackends(rules, wanted), judgeMark(all, mark), judgeLabels(all)}
}

func judgeBackends(rules map[string][]foreignRule, wanted string) preflight.Requirement {
	const name = "iptables backends"
	nft, legacy := len(rules[NFT]), len(rules[Legacy])
	detail := fmt.Sprintf("others have %d rules in nft, %d in legacy", nft, legacy)
	other := map[string]string{NFT: Legacy, Legacy: NFT}[wanted]
	switch {
	case nft > 0 && legacy > 0:
		return preflight.Warn(name, fmt.Sprintf("%s (the first: %s; %s): each packet passes both", detail, rules[NFT][0], rules[Legacy][0]),
			"move all rules to one backend (iptables-legacy-save | iptables-nft-restore, then flush the legacy tables): with both, what one accepts the other still judges")
	case len(rules[other]) > 0:
		return preflight.Warn(name, fmt.Sprintf("%s, and ours go to %s", detail, wanted),
			"use --iptables "+other+" or auto: --allowed-target ACCEPT cannot pass the rules of another backend")
	}
	return preflight.Found(name, detail)
}

func judgeMark(rules []foreignRule, mark uint32) preflight.Requirement {
	name := fmt.Sprintf("mark bit %#x", mark)
	const remedy = "choose a bit that nobody uses, with --mark, or have that rule leave this bit alone (a mask)"
	var setters, testers, writers, savers, readers []string
	for _, rule := range rules {
		use := rule.markUse(mark)
		add := func(to *[]string, used bool) {
			if used {
				*to = append(*to, rule.String())
			}
		}
		add(&setters, use.sets)
		add(&testers, use.tests)
		add(&writers, use.writesCt)
		add(&savers, use.savesCt)
		add(&readers, use.readsCt)
	}
	switch {
	case len(setters) > 0:
		return preflight.Fail(name, "set by others, and so their packets are rejected:\n"+list(setters), remedy)
	case len(writers) > 0 && len(readers) > 0:
		return preflight.Fail(name, "set by others on connections and restored to packets, which are rejected then:\n"+list(append(writers, readers...)), remedy)
	case len(savers) > 0 && len(readers) > 0:
		return preflight.Warn(name, "a denial may be saved with a connection and restored when the rules allow it again:\n"+list(append(savers, readers...)), remedy)
	case len(testers) > 0:
		return preflight.Warn(name, "denied packets match rules of others:\n"+list(testers), remedy)
	}
	return preflight.Found(name, "nobody else uses it")
}

func judgeLabels(rules []foreignRule) preflight.Requirement {
	name := fmt.Sprintf("connection labels %d to %d", reopenedLabel, deniedLabel)
	const remedy = "give that rule another label: these four are the agent's"
	var setters, testers []string
	for _, rule := range rules {
		for label, sets := range rule.labels() {
			switch {
			case label < reopenedLabel || label > deniedLabel:
			case sets:
				setters = append(setters, rule.String())
			default:
				testers = append(testers, rule.String())
			}
		}
	}
	switch {
	case len(setters) > 0:
		return preflight.Fail(name, "set by others:\n"+list(setters), remedy)
	case len(testers) > 0:
		return preflight.Warn(name, "matched by others:\n"+list(testers), remedy)
	}
	return preflight.Found(name, "nobody else uses them")
}

// list shows the first few.
func list(texts []string) string {
	const few = 5
	if more := len(texts) - few; more > 0 {
		texts = append(slices.Clone(texts[:few]), fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, "\n")
}

// option is an option of a rule as iptables-save prints it, behind its match or target.
type option struct {
	extension, name string
	negated         bool
	value, mask     uint32 // of its argument, if that is a mark
}

func (r foreignRule) options() []option {
	var options []option
	var extension string
	fields := strings.Fields(r.text)
	for i, field := range fields {
		if field == "-m" || field == "-j" {
			extension = at(fields, i+1)
		}
		if !strings.HasPrefix(field, "--") {
			continue
		}
		o := option{extension: extension, name: field, negated: i > 0 && fields[i-1] == "!"}
		o.value, o.mask = parseMark(at(fields, i+1))
		options = append(options, o)
	}
	return options
}

// markUse says what the rule does with our bit.
func (r foreignRule) markUse(mark uint32) markUse {
	use := markUse{}
	moved := mark // what a copy from one mark to the other moves of it
	for _, o := range r.options() {
		ours := o.value&mark != 0
		switch o.extension + " " + o.name {
		case "mark --mark":
			use.match(o, mark)
		case "MARK --set-xmark", "TPROXY --tproxy-mark":
			use.sets = use.sets || ours
		case "CONNMARK --set-xmark":
			use.writesCt = use.writesCt || ours
		case "CONNMARK --nfmask", "CONNMARK --ctmask":
			moved &= o.value
		case "CONNMARK --save-mark":
			use.savesCt = true
		case "CONNMARK --restore-mark":
			use.readsCt = true
		}
	}
	use.savesCt = use.savesCt && moved != 0 && !use.lacks
	use.readsCt = use.readsCt && moved != 0
	return use
}

// match takes in that the rule asks for a mark.
func (u *markUse) match(o option, mark uint32) {
	switch {
	case o.mask&mark == 0:
	case o.value&mark != 0:
		u.tests = true
	case !o.negated:
		u.lacks = true
	}
}

// labels returns the labels that the rule names, and whether it sets them.
func (r foreignRule) labels() map[int]bool {
	labels := map[int]bool{}
	fields := strings.Fields(r.text)
	for i, field := range fields {
		if field != "--label" {
			continue
		}
		if label, err := strconv.Atoi(strings.Trim(at(fields, i+1), `"`)); err == nil {
			labels[label] = labels[label] || at(fields, i+2) == "--set"
		}
	}
	return labels
}

func at(fields []string, i int) string {
	if i < len(fields) {
		return fields[i]
	}
	return ""
}

// parseMark reads VALUE[/MASK]; what is neither is no mark, and uses no bit.
func parseMark(text string) (value, mask uint32) {
	first, second, masked := strings.Cut(text, "/")
	if !masked {
		second = "0xffffffff"
	}
	v, errValue := strconv.ParseUint(first, 0, 32)
	m, errMask := strconv.ParseUint(second, 0, 32)
	if errValue != nil || errMask != nil {
		return 0, 0
	}
	return uint32(v), uint32(m) //nolint:gosec // 32 bits
}
