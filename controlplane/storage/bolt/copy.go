package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/nameward/nameward/controlplane/storage"
)

// Copy is the storage of a directory that is copied from or to, while no server runs on it.
type Copy struct{ Dir string }

// Hold opens the storage, so that no server can until release. ErrInUse when one has it, ErrEmpty when there is none.
func (c Copy) Hold(ctx context.Context) (read func(record func(storage.Record) error) (storage.Meta, error), release func() error, err error) {
	path := filepath.Join(c.Dir, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("%s: %w", c.Dir, ErrEmpty)
	}
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return nil, nil, fmt.Errorf("%s: %w", c.Dir, ErrInUse)
	case err != nil:
		return nil, nil, fmt.Errorf("open %s: %w", path, err)
	}
	b := &Backend{db: db}
	return func(record func(storage.Record) error) (storage.Meta, error) { return b.Load(ctx, record) }, db.Close, nil
}

// Write makes the storage of the directory, of records as they are; ErrHolds when there is one. It is there when it is
// whole.
func (c Copy) Write(_ context.Context, meta storage.Meta, records func(record func(storage.Record) error) error) (err error) {
	if err := os.MkdirAll(c.Dir, dirMode); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	release, err := claim(c.Dir, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	restoring := filepath.Join(c.Dir, restoringName)
	if err := os.Remove(restoring); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", restoring, err)
	}
	defer func() {
		if removeErr := os.Remove(restoring); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove %s: %w", restoring, removeErr))
		}
	}()
	db, err := bbolt.Open(restoring, fileMode, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return fmt.Errorf("open %s: %w", restoring, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return fill(tx, meta, records) })
	if err := errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("write %s: %w", restoring, err)
	}
	if err := own(restoring, c.Dir); err != nil {
		return err
	}
	return install(c.Dir, restoring, false)
}

func fill(tx *bbolt.Tx, meta storage.Meta, records func(record func(storage.Record) error) error) error {
	about, err := tx.CreateBucket([]byte(metaBucket))
	if err != nil {
		return fmt.Errorf("make bucket: %w", err)
	}
	objects, err := tx.CreateBucket([]byte(objectsBucket))
	if err != nil {
		return fmt.Errorf("make bucket: %w", err)
	}
	revision := func(r uint64) []byte { return binary.BigEndian.AppendUint64(nil, r) }
	errs := []error{
		about.Put([]byte(formatKey), []byte(format)),
		about.Put([]byte(storeIDKey), []byte(meta.StoreID)),
		about.Put([]byte(revisionKey), revision(meta.Revision)),
	}
	for collection, last := range meta.Collections {
		errs = append(errs, about.Put([]byte(collectionPrefix+collection), revision(last)))
	}
	return errors.Join(append(errs, records(func(r storage.Record) error { return objects.Put([]byte(r.Key), r.Encode()) }))...)
}
