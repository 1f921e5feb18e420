package ruleset_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nameward/nameward/api/ruleset"
)

func TestParseSource(t *testing.T) {
	describe := func(c ruleset.Connection) string {
		if !c.Local {
			return c.Source.String()
		}
		text := "local"
		if c.UID != nil {
			text += fmt.Sprint(" uid ", *c.UID)
		}
		return text + " unit " + c.Unit + " cgroup " + c.Cgroup
	}
	for text, want := range map[string]string{
		"":                                "local unit  cgroup ",
		"host":                            "local unit  cgroup ",
		"uid:0":                           "local uid 0 unit  cgroup ",
		"unit:web.service":                "local unit web.service cgroup ",
		"cgroup:/a,uid:b/":                "local unit  cgroup /a,uid:b",
		"uid:7,unit:web.service,cgroup:/": "local uid 7 unit web.service cgroup /",
		"::ffff:10.0.0.1":                 "10.0.0.1",
		"fd00::1%eth0":                    "fd00::1",
	} {
		var c ruleset.Connection
		if err := c.ParseSource(text); err != nil || describe(c) != want {
			t.Errorf("%q: got %q, %v, want %q", text, describe(c), err, want)
		}
	}
	for text, reason := range map[string]string{
		"web":                   "is neither an address, nor `host`",
		"uid:":                  "user id \"\"",
		"uid:4294967295":        "which is none",
		"uid:1,uid:2":           "says `uid:` twice",
		"uid:1,x":               "has \"x\"",
		"unit:web":              "is no systemd unit",
		"cgroup:a":              "has to begin with `/`",
		"uid:1, unit:a.service": "has \" unit:a.service\"",
	} {
		var c ruleset.Connection
		if err := c.ParseSource(text); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: got %v, want a fault that says %q", text, err, reason)
		}
	}
}
