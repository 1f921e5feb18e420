package bolt

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"

	"github.com/nameward/nameward/controlplane/storage"
)

var (
	// ErrInUse says that a server has the directory open.
	ErrInUse = errors.New("a server is running on it")
	// ErrHolds says that the directory has a store already.
	ErrHolds = errors.New("holds a store already")
	// ErrEmpty says that the directory has none.
	ErrEmpty = errors.New("holds no store")
)

const (
	restoringName = fileName + ".restoring"
	// beforeName is what a store is put aside as when another one takes its place.
	beforeName = fileName + ".before-restore"
)

// WriteTo writes the storage as it is at one revision, while commits go on: what was acknowledged before the call is
// part of it.
func (b *Backend) WriteTo(w io.Writer) (int64, error) { return writeTo(b.db, w) }

func writeTo(db *bbolt.DB, w io.Writer) (n int64, err error) {
	err = db.View(func(tx *bbolt.Tx) error {
		var err error
		n, err = tx.WriteTo(w)
		return err
	})
	if err != nil {
		return n, fmt.Errorf("write backup: %w", err)
	}
	return n, nil
}

// Backup writes the storage of a directory that no server has open; ErrInUse when one has.
func Backup(dir string, w io.Writer) error {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", dir, ErrEmpty)
	}
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true})
	switch {
	case errors.Is(err, bbolterrors.ErrTimeout):
		return fmt.Errorf("%s: %w", dir, ErrInUse)
	case err != nil:
		return fmt.Errorf("open %s: %w", path, err)
	}
	_, err = writeTo(db, w)
	return errors.Join(err, db.Close())
}

// Check reads the whole of a backup and returns what it is of, or what is wrong with it.
func Check(path string) (meta storage.Meta, err error) {
	// The file is mapped into memory: one that is damaged may lead to where nothing is.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil {
			err = fmt.Errorf("%s: %w: %v", path, storage.ErrCorrupt, fault)
		}
	}()
	info, err := os.Stat(path)
	if err != nil {
		return meta, fmt.Errorf("read backup: %w", err)
	}
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout, ReadOnly: true})
	if err != nil {
		return meta, fmt.Errorf("%s: %w: is no backup: %w", path, storage.ErrCorrupt, err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.View(func(tx *bbolt.Tx) error { return checkPages(tx, info.Size()) }); err != nil {
		return meta, fmt.Errorf("%s: %w", path, err)
	}
	meta, err = (&Backend{db: db}).Load(context.Background(), func(storage.Record) error { return nil })
	if err != nil {
		return meta, fmt.Errorf("%s: %w", path, err)
	}
	return meta, nil
}

func checkPages(tx *bbolt.Tx, size int64) error {
	if tx.Size() > size {
		return fmt.Errorf("%w: %d bytes are there of %d", storage.ErrCorrupt, size, tx.Size())
	}
	meta := tx.Bucket([]byte(metaBucket))
	if meta == nil || string(meta.Get([]byte(formatKey))) != format {
		return fmt.Errorf("%w: is no store of a format that this version knows", storage.ErrCorrupt)
	}
	var faults []error
	for err := range tx.Check() {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return fmt.Errorf("%w: %w", storage.ErrCorrupt, errors.Join(faults...))
	}
	return nil
}

// Restore makes the storage of a directory that of a backup, with a store id of its own: what happens from here on is
// another history than the one that the backup was taken from, in which the same revisions may stand for something
// else. ErrInUse when a server has the directory open. A store that is there already is ErrHolds, or with replace put
// aside. The backup is read whole, and found good, before anything changes.
func Restore(dir string, backup io.Reader, replace bool) (meta storage.Meta, err error) {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return meta, fmt.Errorf("make data directory: %w", err)
	}
	release, err := claim(dir, replace)
	if err != nil {
		return meta, err
	}
	defer func() { err = errors.Join(err, release()) }()
	restoring := filepath.Join(dir, restoringName)
	defer func() {
		if removeErr := os.Remove(restoring); removeErr != nil && !errors.Is(removeErr, fs.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove %s: %w", restoring, removeErr))
		}
	}()
	if err := copyTo(restoring, backup); err != nil {
		return meta, err
	}
	if _, err := Check(restoring); err != nil {
		return meta, err
	}
	if meta, err = rename(restoring); err != nil {
		return meta, err
	}
	if err := own(restoring, dir); err != nil {
		return meta, err
	}
	return meta, install(dir, restoring, replace)
}

// claim makes sure that no server has the directory open, and that none opens the store which is in it until release.
func claim(dir string, replace bool) (release func() error, err error) {
	path := filepath.Join(dir, fileName)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return func() error { return nil }, nil
	}
	file, err := os.OpenFile(path, os.O_RDWR, fileMode) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	// The lock that bbolt takes; its file need not be a good one to be replaced.
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil { //nolint:gosec // a descriptor
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, ErrInUse), file.Close())
	}
	if !replace {
		return nil, errors.Join(fmt.Errorf("%s: %w", dir, ErrHolds), file.Close())
	}
	return file.Close, nil
}

func copyTo(path string, backup io.Reader) error {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, fileMode) //nolint:gosec // in the data directory
	if err != nil {
		return fmt.Errorf("make store: %w", err)
	}
	_, err = io.Copy(file, backup)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("copy backup: %w", err)
	}
	return nil
}

// rename gives a store another id.
func rename(path string) (meta storage.Meta, err error) {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: lockTimeout, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return meta, fmt.Errorf("open %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket([]byte(metaBucket)).Put([]byte(storeIDKey), []byte(rand.Text())); err != nil {
			return fmt.Errorf("write store id: %w", err)
		}
		var err error
		meta, err = readMeta(tx)
		return err
	})
	return meta, errors.Join(err, db.Close())
}

// own gives a file to whom the directory belongs: root restores for a server that runs as somebody else.
func own(path, dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("look at data directory: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	if err := os.Chown(path, int(owner.Uid), int(owner.Gid)); err != nil {
		return fmt.Errorf("hand over store: %w", err)
	}
	return nil
}

// install puts the file in the store's place, at once.
func install(dir, restoring string, replace bool) error {
	path := filepath.Join(dir, fileName)
	if replace {
		before := filepath.Join(dir, beforeName)
		if err := os.Remove(before); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", before, err)
		}
		if err := os.Link(path, before); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("put store aside: %w", err)
		}
		if err := os.Rename(restoring, path); err != nil {
			return fmt.Errorf("install store: %w", err)
		}
		return syncDir(dir)
	}
	// Unlike a rename, a link takes no place: a server may have made a store meanwhile.
	if err := os.Link(restoring, path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w", dir, ErrHolds)
	} else if err != nil {
		return fmt.Errorf("install store: %w", err)
	}
	return syncDir(dir)
}
