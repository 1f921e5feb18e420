package ruleset

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseSource reads who opens the connection: `host`, or nothing, for the node itself; the source address
// of forwarded traffic; or of a process of the node what is known of it, with commas between: `uid:N`,
// `unit:NAME` and, last since a path may have commas, `cgroup:/PATH`. The error says what is wrong with
// the text.
func (c *Connection) ParseSource(text string) error {
	if c.Local = text == "" || text == "host"; c.Local {
		return nil
	}
	for _, kind := range []string{"uid:", "unit:", "cgroup:"} {
		if strings.HasPrefix(text, kind) {
			c.Local = true
			return c.parseProcess(text)
		}
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return errors.New("is neither an address, nor `host`, nor a process: `uid:N`, `unit:NAME` or `cgroup:/PATH`")
	}
	c.Source = address.Unmap().WithZone("")
	return nil
}

func (c *Connection) parseProcess(text string) error {
	for text != "" {
		if path, ok := strings.CutPrefix(text, "cgroup:"); ok {
			return c.parseCgroup(path)
		}
		var field string
		field, text, _ = strings.Cut(text, ",")
		if err := c.parseField(field); err != nil {
			return err
		}
	}
	return nil
}

func (c *Connection) parseField(field string) error {
	kind, value, _ := strings.Cut(field, ":")
	switch {
	case kind == "uid" && c.UID == nil:
		uid, err := strconv.ParseUint(value, 10, 32)
		if err != nil || uid == noUser {
			return fmt.Errorf("has the user id %q, which is none", value)
		}
		c.UID = new(uint32)
		*c.UID = uint32(uid)
	case kind == "unit" && c.Unit == "":
		if fault := unitFault(value); fault != "" {
			return fmt.Errorf("has the unit %q, which %s", value, fault)
		}
		c.Unit = value
	case kind == "uid" || kind == "unit":
		return fmt.Errorf("says `%s:` twice", kind)
	default:
		return fmt.Errorf("has %q, which is neither `uid:N` nor `unit:NAME` nor `cgroup:/PATH`", field)
	}
	return nil
}

func (c *Connection) parseCgroup(path string) error {
	path, fault := canonicalCgroup(path)
	if fault != "" {
		return fmt.Errorf("has the control group %q, which %s", path, fault)
	}
	c.Cgroup = path
	return nil
}
