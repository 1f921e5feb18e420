package store

import (
	"encoding/binary"
	"fmt"

	"github.com/hashicorp/go-memdb"

	"github.com/nameward/nameward/controlplane/policy"
)

const (
	tablePolicies   = "policies"
	tableDomainSets = "domain_sets"
	tableNodes      = "nodes"

	indexID = "id"
	// indexOrder has the policies in order of evaluation.
	indexOrder = "order"
)

func schema() *memdb.DBSchema {
	return &memdb.DBSchema{Tables: map[string]*memdb.TableSchema{
		tablePolicies: {Name: tablePolicies, Indexes: map[string]*memdb.IndexSchema{
			indexID:    {Name: indexID, Unique: true, Indexer: textIndex[*policy.Policy](func(p *policy.Policy) string { return p.Name })},
			indexOrder: {Name: indexOrder, Unique: true, Indexer: orderIndex{}},
		}},
		tableDomainSets: {Name: tableDomainSets, Indexes: map[string]*memdb.IndexSchema{
			indexID: {Name: indexID, Unique: true, Indexer: textIndex[*policy.DomainSet](func(s *policy.DomainSet) string { return s.Name })},
		}},
		tableNodes: {Name: tableNodes, Indexes: map[string]*memdb.IndexSchema{
			indexID: {Name: indexID, Unique: true, Indexer: textIndex[*nodePlace](func(p *nodePlace) string { return p.id.String() })},
		}},
	}}
}

// textIndex indexes objects of one type by a text that they all have. memdb's own StringFieldIndex looks
// the field up by reflection at each call.
type textIndex[T any] func(T) string

// FromObject returns the object's key.
func (i textIndex[T]) FromObject(object any) (bool, []byte, error) {
	t, ok := object.(T)
	if !ok {
		return false, nil, fmt.Errorf("index %T: not %T", object, t)
	}
	return true, textKey(i(t)), nil
}

// FromArgs returns the key of a text.
func (textIndex[T]) FromArgs(args ...any) ([]byte, error) {
	if len(args) == 1 {
		if s, ok := args[0].(string); ok {
			return textKey(s), nil
		}
	}
	return nil, fmt.Errorf("look up by %v: not one text", args)
}

// textKey ends the text with a zero byte, which no name has, so that no key is the beginning of another.
func textKey(s string) []byte { return append([]byte(s), 0) }

// orderIndex indexes policies by priority, then name.
type orderIndex struct{}

// FromObject returns the policy's key.
func (orderIndex) FromObject(object any) (bool, []byte, error) {
	p, ok := object.(*policy.Policy)
	if !ok {
		return false, nil, fmt.Errorf("index %T: not a policy", object)
	}
	// With the sign bit flipped, numbers compare as their bytes do.
	key := binary.BigEndian.AppendUint32(nil, uint32(p.Rules.Priority)^1<<31) //nolint:gosec // the bits are meant
	return true, append(key, textKey(p.Name)...), nil
}

// FromArgs refuses: the index is only walked.
func (orderIndex) FromArgs(args ...any) ([]byte, error) {
	return nil, fmt.Errorf("look up by %v: policies are not looked up by order", args)
}
