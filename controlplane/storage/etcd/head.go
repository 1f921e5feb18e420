package etcd

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"

	"github.com/nameward/nameward/controlplane/storage"
)

// head is what every commit writes.
type head struct {
	Format      int               `json:"format"`
	StoreID     string            `json:"storeId"`
	Revision    uint64            `json:"revision"`
	Collections map[string]uint64 `json:"collections"`
	// Commits are those of the transaction that wrote it.
	Commits []headCommit `json:"commits"`
}

// headCommit is one of them: what of it the other keys of the transaction do not say.
type headCommit struct {
	// ID tells the server that it is its own.
	ID       string `json:"id"`
	Revision uint64 `json:"revision"`
	// Deleted are the objects that are gone.
	Deleted []string `json:"deleted,omitempty"`
	// Entry is the id of the entry that has all of the commit; empty when the objects were written at once.
	Entry string `json:"entry,omitempty"`
}

func (h *head) encode() string {
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // of texts and numbers
	}
	return string(text)
}

var errFormat = errors.New("the store is of a format that is not known")

func decodeHead(value []byte) (h head, err error) {
	if err := json.Unmarshal(value, &h); err != nil {
		return h, fmt.Errorf("%w: head: %w", storage.ErrCorrupt, err)
	}
	if h.Format != format {
		return h, fmt.Errorf("%w: it has %d, this version knows %d", errFormat, h.Format, format)
	}
	if h.StoreID == "" || h.Revision == 0 {
		return h, storage.Corrupt("head", "store id or revision is missing")
	}
	if h.Collections == nil {
		h.Collections = map[string]uint64{}
	}
	return h, nil
}

func (h *head) meta() storage.Meta {
	return storage.Meta{StoreID: h.StoreID, Revision: h.Revision, Collections: maps.Clone(h.Collections)}
}

// next returns the head behind commits, which get their revisions.
func (h *head) next(commits []*commit) head {
	next := *h
	next.Collections, next.Commits = maps.Clone(h.Collections), nil
	for _, c := range commits {
		next.Revision++
		c.revision = next.Revision
		of := headCommit{ID: c.id, Revision: c.revision, Entry: c.entry}
		for _, operation := range c.operations {
			if operation.Looks {
				continue
			}
			next.Collections[operation.Collection()] = c.revision
			if operation.Value == nil && c.entry == "" {
				of.Deleted = append(of.Deleted, operation.Key)
			}
		}
		next.Commits = append(next.Commits, of)
	}
	return next
}
