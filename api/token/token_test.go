package token_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
	"github.com/nameward/nameward/api/token"
)

func TestPages(t *testing.T) {
	of := func(filter *namewardv1.NodeFilter, size int32) *namewardv1.ListNodesRequest {
		return &namewardv1.ListNodesRequest{Filter: filter, PageSize: size}
	}
	web := map[string]string{"role": "web", "zone": "a", "rack": "7"}
	made := of(&namewardv1.NodeFilter{MatchLabels: web}, 10)
	page := token.Page(made, "n7")
	for name, test := range map[string]struct {
		request token.List
		page    string
		want    string
		err     error
	}{
		"first page":          {made, "", "", nil},
		"same list":           {made, page, "n7", nil},
		"another size":        {of(&namewardv1.NodeFilter{MatchLabels: web}, 1), page, "n7", nil},
		"no filter":           {of(nil, 10), page, "", token.ErrBad},
		"another filter":      {of(&namewardv1.NodeFilter{MatchLabels: web, State: namewardv1.NodeStatus_FAILED}, 10), page, "", token.ErrBad},
		"another list":        {&namewardv1.ListPoliciesRequest{}, token.Page(of(nil, 0), "n7"), "", token.ErrBad},
		"empty filter":        {of(&namewardv1.NodeFilter{}, 10), token.Page(of(nil, 0), "n7"), "n7", nil},
		"cut":                 {made, page[1:], "", token.ErrBad},
		"with something else": {made, page + "A", "", token.ErrBad},
		"of another kind":     {made, token.Seal("resume", "n7"), "", token.ErrBad},
	} {
		t.Run(name, func(t *testing.T) {
			request := proto.Clone(test.request).(token.List)
			message := request.ProtoReflect()
			message.Set(message.Descriptor().Fields().ByName("page_token"), protoreflect.ValueOfString(test.page))
			got, err := token.ParsePage(request)
			if got != test.want || !errors.Is(err, test.err) {
				t.Errorf("got %q, %v, want %q, %v", got, err, test.want, test.err)
			}
		})
	}
}
