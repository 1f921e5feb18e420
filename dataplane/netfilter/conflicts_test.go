package netfilter

import (
	"strings"
	"testing"

	"github.com/nameward/nameward/dataplane/preflight"
)

func TestJudgeMark(t *testing.T) {
	const mark = 0x10000000
	for _, c := range []struct {
		fact  string
		rules string
		want  preflight.Level
	}{
		{"another bit", "-A PREROUTING -j MARK --set-xmark 0x4000/0x4000", preflight.OK},
		{"the whole mark, cleared", "-A PREROUTING -j MARK --set-xmark 0x0/0xffffffff", preflight.OK},
		{"our bit", "-A PREROUTING -p tcp -j MARK --set-xmark 0x10000000/0x10000000", preflight.Failed},
		{"a whole mark with our bit", "-A OUTPUT -j MARK --set-xmark 0xffffffff/0xffffffff", preflight.Failed},
		{"our bit, flipped", "-A OUTPUT -j MARK --set-xmark 0x10000000/0x0", preflight.Failed},
		{"a transparent proxy's mark", "-A PREROUTING -p tcp -j TPROXY --on-port 1 --on-ip 0.0.0.0 --tproxy-mark 0x10000000/0x10000000", preflight.Failed},
		{"our bit, asked for", "-A FORWARD -m mark --mark 0x10000000/0x10000000 -j ACCEPT", preflight.Warning},
		{"our bit must not be there", "-A FORWARD -m mark --mark 0x0/0x10000000 -j ACCEPT", preflight.OK},
		{"a whole mark without our bit", "-A FORWARD -m mark --mark 0x1 -j ACCEPT", preflight.OK},
		{"a connection's mark with our bit, asked for", "-A FORWARD -m connmark --mark 0x10000000/0x10000000 -j ACCEPT", preflight.OK},
		{"a connection's mark with our bit, set", "-A FORWARD -j CONNMARK --set-xmark 0x10000000/0x10000000", preflight.OK},
		{"and restored", "-A FORWARD -j CONNMARK --set-xmark 0x10000000/0x10000000\n-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", preflight.Failed},
		{"saved and restored", "-A FORWARD -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\n-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", preflight.Warning},
		{"other bits saved and restored", "-A FORWARD -j CONNMARK --save-mark --nfmask 0xffff --ctmask 0xffff\n-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffff --ctmask 0xffff", preflight.OK},
		{"saved of packets without our bit", "-A POSTROUTING -m mark --mark 0xca6c -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\n-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", preflight.OK},
		{"saved of packets with any other mark", "-A POSTROUTING -m mark ! --mark 0x0 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff\n-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", preflight.Warning},
	} {
		t.Run(c.fact, func(t *testing.T) {
			var rules []foreignRule
			for text := range strings.SplitSeq(c.rules, "\n") {
				rules = append(rules, foreignRule{ipv4, NFT, "mangle", text})
			}
			got := judgeMark(rules, mark)
			if got.Level != c.want {
				t.Errorf("got %+v, want %s", got, c.want)
			}
			if c.want != preflight.OK && !strings.Contains(got.Detail, rules[0].text) {
				t.Errorf("does not name the rule: %+v", got)
			}
		})
	}
}

func TestManyConflictsAreCounted(t *testing.T) {
	rules := make([]foreignRule, 12)
	for i := range rules {
		rules[i] = foreignRule{ipv4, NFT, "mangle", "-A OUTPUT -j MARK --set-xmark 0x1/0x1"}
	}
	if got := judgeMark(rules, 1); strings.Count(got.Detail, "--set-xmark") != 5 || !strings.Contains(got.Detail, "and 7 more") {
		t.Errorf("got %s", got.Detail)
	}
}
