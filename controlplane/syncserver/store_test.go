package syncserver

import (
	"testing"

	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
)

// OpenStore opens a store of the test's own.
func OpenStore(t testing.TB) *store.Store {
	t.Helper()
	backend, err := bolt.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := backend.Close(); err != nil {
			t.Error(err)
		}
	})
	s, err := store.Open(t.Context(), backend)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
