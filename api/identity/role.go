package identity

import (
	"fmt"
	"slices"
	"strings"
)

// Role is what somebody is to Nameward.
type Role string

// The roles. Viewer, Editor and Admin are of people and their programs, each with all that the one before may
// do; Node and Server stand apart.
const (
	Server Role = "server"
	Node   Role = "node"
	Admin  Role = "admin"
	Editor Role = "editor"
	Viewer Role = "viewer"
)

// Roles returns all of them.
func Roles() []Role { return []Role{Server, Node, Admin, Editor, Viewer} }

// ParseRole reads a role.
func ParseRole(s string) (Role, error) {
	if slices.Contains(Roles(), Role(s)) {
		return Role(s), nil
	}
	return "", fmt.Errorf("%q is none of the roles server, node, admin, editor, viewer", s)
}

// Named returns the role and the name that an ID has by convention: `spiffe://DOMAIN/ROLE/NAME`, and a DNS
// name is that of a node. Any other ID has neither.
func (id ID) Named() (Role, string, bool) {
	if id.dns != "" {
		return Node, id.dns, true
	}
	role, name, ok := strings.Cut(strings.TrimPrefix(id.Path(), "/"), "/")
	if !ok || strings.Contains(name, "/") || !slices.Contains(Roles(), Role(role)) {
		return "", "", false
	}
	return Role(role), name, true
}
