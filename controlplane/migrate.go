package controlplane

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/storage/etcd"
)

// copyable is a storage that is copied from or to.
type copyable interface {
	// Hold keeps the storage as it is, for reading, until release, which says whether it stayed so.
	Hold(ctx context.Context) (read func(record func(storage.Record) error) (storage.Meta, error), release func() error, err error)
	// Write makes the storage.
	Write(ctx context.Context, meta storage.Meta, records func(record func(storage.Record) error) error) error
}

// ErrPlace says that a place of a storage is none.
var ErrPlace = errors.New("is no place of a storage")

var errMigration = errors.New("the copy is not what was copied")

// Migrate copies a storage to another place, which must be empty, and reads both again. The copy has the same store id
// and the same revisions: to agents and clients it is the same store. No server may run on either. Places are
// `bolt:DIR` and `etcd:HOST:PORT,…/PREFIX/`; cfg says how etcd is spoken to.
func Migrate(ctx context.Context, cfg Config, from, to string) (meta storage.Meta, err error) {
	source, err := placeOf(cfg, from)
	if err != nil {
		return meta, err
	}
	target, err := placeOf(cfg, to)
	if err != nil {
		return meta, err
	}
	read, release, err := source.Hold(ctx)
	if err != nil {
		return meta, err //nolint:wrapcheck // names the place
	}
	defer func() { err = errors.Join(err, release()) }()
	if meta, err = read(func(storage.Record) error { return nil }); err != nil {
		return meta, err
	}
	err = target.Write(ctx, meta, func(record func(storage.Record) error) error {
		_, err := read(record)
		return err
	})
	if err != nil {
		return meta, err //nolint:wrapcheck // names the place
	}
	readTarget, releaseTarget, err := target.Hold(ctx)
	if err != nil {
		return meta, err //nolint:wrapcheck // names the place
	}
	defer func() { err = errors.Join(err, releaseTarget()) }()
	return meta, compareCopies(read, readTarget)
}

func placeOf(cfg Config, text string) (copyable, error) {
	kind, where, _ := strings.Cut(text, ":")
	switch {
	case kind == storeBolt && where != "":
		return bolt.Copy{Dir: where}, nil
	case kind == storeEtcd:
		endpoints, prefix, ok := strings.Cut(where, "/")
		if ok {
			cfg.EtcdPrefix = "/" + prefix
		}
		cfg.Store, cfg.EtcdEndpoints, cfg.Advertise = storeEtcd, strings.Split(endpoints, ","), "none:1"
		if !strings.HasSuffix(cfg.EtcdPrefix, "/") {
			cfg.EtcdPrefix += "/"
		}
		var faults []error
		cfg.validateEtcd(func(flag, format string, args ...any) { faults = append(faults, fmt.Errorf(flag+": "+format, args...)) })
		config, err := cfg.etcdTLS()
		if len(faults) > 0 {
			err = fmt.Errorf("%q %w: %w", text, ErrPlace, errors.Join(append(faults, err)...))
		}
		return etcd.Copy{Config: etcd.Config{Endpoints: cfg.EtcdEndpoints, Prefix: cfg.EtcdPrefix, TLS: config}}, err
	}
	return nil, fmt.Errorf("%q %w: it is neither bolt:DIR nor etcd:HOST:PORT,…/PREFIX/", text, ErrPlace)
}

// compareCopies reads two storages whole and compares them.
func compareCopies(one, other func(record func(storage.Record) error) (storage.Meta, error)) error {
	sums := [2][]byte{}
	metas := [2]storage.Meta{}
	for i, read := range []func(record func(storage.Record) error) (storage.Meta, error){one, other} {
		hash := sha256.New()
		meta, err := read(func(r storage.Record) error {
			var lengths []byte
			for _, n := range []uint64{uint64(len(r.Key)), r.Revision, uint64(len(r.Value))} {
				lengths = binary.AppendUvarint(lengths, n)
			}
			for _, part := range [][]byte{lengths, []byte(r.Key), r.Value} {
				hash.Write(part) //nolint:errcheck // of a hash: never fails
			}
			return nil
		})
		if err != nil {
			return err
		}
		sums[i], metas[i] = hash.Sum(nil), meta
	}
	a, b := metas[0], metas[1]
	if string(sums[0]) != string(sums[1]) || a.StoreID != b.StoreID || a.Revision != b.Revision || !maps.Equal(a.Collections, b.Collections) {
		return errMigration
	}
	return nil
}
