package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nameward/nameward/controlplane/storage"
)

var (
	// ErrInUse says that servers run on the storage.
	ErrInUse = errors.New("servers are running on it, or were seconds ago")
	// ErrHolds says that there is something under the prefix already.
	ErrHolds = errors.New("holds something already")
	// ErrChanged says that something was written meanwhile.
	ErrChanged = errors.New("was written to meanwhile")
)

// Copy is a storage that is copied from or to, while no server runs on it.
type Copy struct{ Config Config }

// Hold reads the storage as it is at one revision; release says whether anybody wrote to it since.
func (c Copy) Hold(ctx context.Context) (read func(record func(storage.Record) error) (storage.Meta, error), release func() error, err error) {
	b, err := Open(c.Config)
	if err != nil {
		return nil, nil, err
	}
	began, err := b.readHead(ctx)
	if err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	if err := b.unused(ctx, began.mod); err != nil {
		return nil, nil, errors.Join(err, b.Close())
	}
	read = func(record func(storage.Record) error) (storage.Meta, error) {
		at := *began
		err := b.loadAt(ctx, &at, record)
		return at.head.meta(), err
	}
	return read, func() error {
		now, err := b.readHead(ctx)
		if err == nil {
			err = b.unused(ctx, now.mod)
		}
		if err == nil && now.headMod != began.headMod {
			err = fmt.Errorf("etcd at %s: %w", c.Config.Prefix, ErrChanged)
		}
		return errors.Join(err, b.Close())
	}, nil
}

// unused returns ErrInUse when a server is registered.
func (b *Backend) unused(ctx context.Context, mod int64) error {
	return b.page(ctx, b.serverKey(""), mod, func(kv *mvccpb.KeyValue) error {
		return fmt.Errorf("etcd at %s: %w: %s", b.cfg.Prefix, ErrInUse, kv.Value)
	})
}

// Write makes the storage of records as they are; ErrHolds when there is anything under the prefix but what a copy left
// that broke off. No server takes it for a storage before it is whole.
func (c Copy) Write(ctx context.Context, meta storage.Meta, records func(record func(storage.Record) error) error) (err error) {
	b, err := Open(c.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	mark := rand.Text()
	if err := b.beginImport(ctx, mark); err != nil {
		return err
	}
	held := clientv3.Compare(clientv3.Value(b.importingKey()), "=", mark)
	var batch []clientv3.Op
	size := 0
	flush := func(guards ...clientv3.Cmp) error {
		if len(batch) == 0 {
			return nil
		}
		ctx, cancel := within(ctx)
		defer cancel()
		ops := batch
		batch, size = nil, 0
		return b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
			response, err := client.Txn(ctx).If(append(guards, held)...).Then(ops...).Commit()
			if err == nil && !response.Succeeded {
				return b.imported(ctx, client, meta)
			}
			return err //nolint:wrapcheck // names what it is
		})
	}
	err = records(func(r storage.Record) error {
		for _, op := range b.foldOperation(&entry{Revision: r.Revision}, storage.Operation{Key: r.Key, Value: r.Value}) {
			if len(batch) == groupOperations || size+len(op.ValueBytes()) > groupBytes {
				if err := flush(); err != nil {
					return err
				}
			}
			batch, size = append(batch, op), size+len(op.ValueBytes())+len(op.KeyBytes())+headerRoom
		}
		return nil
	})
	if err == nil {
		err = flush()
	}
	if err != nil {
		return fmt.Errorf("write etcd at %s: %w", b.cfg.Prefix, err)
	}
	whole := head{Format: format, StoreID: meta.StoreID, Revision: meta.Revision, Collections: maps.Clone(meta.Collections)}
	batch = []clientv3.Op{clientv3.OpPut(b.headKey(), whole.encode()), clientv3.OpDelete(b.importingKey())}
	if err := flush(clientv3.Compare(clientv3.CreateRevision(b.headKey()), "=", 0)); err != nil {
		return fmt.Errorf("write etcd at %s: %w", b.cfg.Prefix, err)
	}
	return nil
}

// imported returns nil when the storage is whole: a transaction whose answer was lost did it.
func (b *Backend) imported(ctx context.Context, client *clientv3.Client, meta storage.Meta) error {
	response, err := client.Get(ctx, b.headKey())
	if err != nil {
		return err //nolint:wrapcheck // names what it is
	}
	if len(response.Kvs) == 1 {
		if now, err := decodeHead(response.Kvs[0].Value); err == nil && now.StoreID == meta.StoreID && now.Revision == meta.Revision {
			return nil
		}
	}
	return ErrChanged
}

// beginImport marks the prefix as one that is being filled, and removes what a copy left that broke off.
func (b *Backend) beginImport(ctx context.Context, mark string) error {
	ctx, cancel := within(ctx)
	defer cancel()
	var found, marked int64
	err := b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Txn(ctx).Then(
			clientv3.OpGet(b.cfg.Prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()),
			clientv3.OpGet(b.importingKey(), clientv3.WithCountOnly()),
		).Commit()
		if err != nil {
			return err //nolint:wrapcheck // below
		}
		found, marked = response.Responses[0].GetResponseRange().Count, response.Responses[1].GetResponseRange().Count
		if found > 0 && marked == 0 {
			return nil
		}
		_, err = client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(b.headKey()), "=", 0)).Then(
			clientv3.OpPut(b.importingKey(), mark),
			clientv3.OpDelete(b.objectKey(""), clientv3.WithPrefix()),
			clientv3.OpDelete(b.cfg.Prefix+"data/", clientv3.WithPrefix()),
		).Commit()
		return err //nolint:wrapcheck // below
	})
	switch {
	case err != nil:
		return fmt.Errorf("write etcd at %s: %w", b.cfg.Prefix, err)
	case found > 0 && marked == 0:
		return fmt.Errorf("etcd at %s: %w", b.cfg.Prefix, ErrHolds)
	}
	return nil
}
