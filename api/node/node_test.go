package node_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/nameward/nameward/api/node"
)

func TestParseID(t *testing.T) {
	for _, s := range []string{"a", "web-1.example.com", "Node_7"} {
		id, err := node.ParseID(s)
		if err != nil || id.String() != s || id.ResourceName() != "nodes/"+s {
			t.Errorf("ParseID(%q): got %q, %v", s, id, err)
		}
	}
	for _, s := range []string{"", "-a", "a-", "a/b", "a b", "é", strings.Repeat("a", 254)} {
		if id, err := node.ParseID(s); !errors.Is(err, node.ErrBadID) {
			t.Errorf("ParseID(%q): got %q, %v, want ErrBadID", s, id, err)
		}
	}
}

func TestParseResourceName(t *testing.T) {
	if id, err := node.ParseResourceName("nodes/a"); err != nil || id.String() != "a" {
		t.Errorf("got %q, %v", id, err)
	}
	if _, err := node.ParseResourceName("policies/a"); !errors.Is(err, node.ErrBadID) {
		t.Errorf("a policy's name: got %v, want ErrBadID", err)
	}
}
