package adminserver

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"

	"github.com/nameward/nameward/api/domain"
	"github.com/nameward/nameward/api/node"
	"github.com/nameward/nameward/api/token"
	"github.com/nameward/nameward/controlplane/ingest"
)

// cursorToken returns the token of the page of mappings behind a place.
func cursorToken(request token.List, c ingest.Cursor) string {
	address := ""
	if c.Address.IsValid() {
		address = c.Address.String()
	}
	fields := []string{strconv.Itoa(int(c.Index)), c.Alias.String(), c.Domain.String(), address, c.Node.String()}
	return token.Page(request, strings.Join(fields, " ")) // names and addresses hold no space
}

func parseCursor(request token.List) (ingest.Cursor, error) {
	text, err := parsePageToken(request)
	if err != nil || text == "" {
		return ingest.Cursor{}, err
	}
	fields := strings.Split(text, " ")
	if len(fields) == 5 {
		if c, err := readCursor([5]string(fields)); err == nil {
			return c, nil
		}
	}
	return ingest.Cursor{}, badPageToken(request)
}

func readCursor(fields [5]string) (c ingest.Cursor, err error) {
	var errs [5]error
	index, err := strconv.ParseUint(fields[0], 10, 8)
	c.Index, errs[0] = ingest.Index(index), err
	if c.Index > ingest.ByNode {
		errs[0] = errors.New("no such index")
	}
	if fields[1] != "" {
		c.Alias, errs[1] = domain.ParseCanonical(fields[1])
	}
	if fields[2] != "" {
		c.Domain, errs[2] = domain.ParseCanonical(fields[2])
	}
	if fields[3] != "" {
		c.Address, errs[3] = netip.ParseAddr(fields[3])
	}
	if fields[4] != "" {
		c.Node, errs[4] = node.ParseID(fields[4])
	}
	return c, errors.Join(errs[:]...)
}
