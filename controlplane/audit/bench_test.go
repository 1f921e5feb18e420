package audit_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/store"
)

// BenchmarkChanges is what many operators change at once, with each change on record and without.
func BenchmarkChanges(b *testing.B) {
	for name, recorded := range map[string]bool{"recorded": true, "unrecorded": false} {
		b.Run(name, func(b *testing.B) {
			dir := b.TempDir()
			var s *store.Store
			if recorded {
				k, err := openKept(dir, settings)
				if err != nil {
					b.Fatal(err)
				}
				defer k.close() //nolint:errcheck // a benchmark
				s = k.Store
			} else {
				backend, err := bolt.Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				defer backend.Close() //nolint:errcheck // a benchmark
				if s, err = store.Open(b.Context(), backend); err != nil {
					b.Fatal(err)
				}
			}
			var count atomic.Int64
			b.SetParallelism(32)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					i := count.Add(1)
					if _, err := s.PutPolicy(context.Background(), policyOf(fmt.Sprintf("p%d", i%1000), fmt.Sprint(i), "a.example"), store.Guard{}); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
