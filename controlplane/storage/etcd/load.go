package etcd

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/nameward/nameward/controlplane/storage"
)

// pageKeys bounds an answer, at up to a mebibyte a key.
const pageKeys = 64

var errImporting = errors.New("a migration into it is under way, or broke off: see nameward-server migrate")

// Load calls record for every object, in order of the keys, as of one revision, from which Follow goes on. It makes
// the storage where there is none. As long as the cluster does not answer, it waits.
func (b *Backend) Load(ctx context.Context, record func(storage.Record) error) (storage.Meta, error) {
	for {
		loaded, err := b.load(ctx, record)
		if err == nil {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.state = *loaded
			b.freshAt = time.Now()
			return b.head.meta(), nil
		}
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return storage.Meta{}, err
		}
		b.cfg.Log.Warn("etcd does not answer, will try on", "err", err)
	}
}

// load reads everything at one of etcd's revisions.
func (b *Backend) load(ctx context.Context, record func(storage.Record) error) (*state, error) {
	at, err := b.openHead(ctx)
	if err != nil {
		return nil, err
	}
	return at, b.loadAt(ctx, at, record)
}

// loadAt reads everything at the revision of etcd that a state is of.
func (b *Backend) loadAt(ctx context.Context, at *state, record func(storage.Record) error) error {
	at.index, at.entries, at.servers = map[string]indexed{}, map[string]*entry{}, map[string]storage.Server{}
	at.changed = make(chan struct{})
	over, err := b.loadEntries(ctx, at)
	if err != nil {
		return err
	}
	err = b.page(ctx, b.cfg.Prefix+"servers/", at.mod, func(kv *mvccpb.KeyValue) error {
		_, id := b.parse(kv.Key)
		at.servers[id], err = decodeServer(id, kv.Value)
		return err
	})
	if err != nil {
		return err
	}
	// What entries write lies over the objects, which may be written in part: of those only the keys count.
	keys := slices.Sorted(maps.Keys(over))
	give := func(r storage.Record) error {
		if r.Revision > at.head.Revision {
			return storage.Corrupt(r.Key, fmt.Sprintf("revision %d is above the storage's, %d", r.Revision, at.head.Revision))
		}
		at.index[r.Key] = indexed{r.Revision, partCount(r.Value)}
		return record(r)
	}
	giveBefore := func(key string) error {
		for len(keys) > 0 && (key == "" || keys[0] <= key) {
			r := over[keys[0]]
			keys = keys[1:]
			if r.Value != nil {
				if err := give(r); err != nil {
					return err
				}
			}
		}
		return nil
	}
	err = b.page(ctx, b.objectKey(""), at.mod, func(kv *mvccpb.KeyValue) error {
		key := string(bytes.TrimPrefix(kv.Key, []byte(b.objectKey(""))))
		if err := giveBefore(key); err != nil {
			return err
		}
		if _, covered := over[key]; covered {
			return nil
		}
		r, err := b.readRecord(ctx, key, kv.Value, at.mod)
		if err != nil {
			return err
		}
		return give(r)
	})
	if err == nil {
		err = giveBefore("")
	}
	return err
}

// openHead makes head if there is none, and reads it.
func (b *Backend) openHead(ctx context.Context) (*state, error) {
	bounded, cancel := within(ctx)
	defer cancel()
	fresh := head{Format: format, StoreID: rand.Text(), Revision: 1, Collections: map[string]uint64{}}
	err := b.cluster.do(bounded, func(ctx context.Context, client *clientv3.Client) error {
		absent := func(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), "=", 0) }
		_, err := client.Txn(ctx).If(absent(b.headKey()), absent(b.importingKey())).Then(clientv3.OpPut(b.headKey(), fresh.encode())).Commit()
		return err //nolint:wrapcheck // below
	})
	if err != nil {
		return nil, fmt.Errorf("read etcd at %s: %w", b.headKey(), err)
	}
	at, err := b.readHead(ctx)
	if errors.Is(err, errNotFound) {
		err = fmt.Errorf("etcd at %s: %w", b.cfg.Prefix, errImporting)
	}
	return at, err
}

// readHead reads head, and says as of which revision of etcd.
func (b *Backend) readHead(ctx context.Context) (*state, error) {
	ctx, cancel := within(ctx)
	defer cancel()
	at := &state{}
	err := b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) error {
		response, err := client.Get(ctx, b.headKey())
		if err != nil {
			return err //nolint:wrapcheck // below
		}
		if len(response.Kvs) == 0 {
			return errNotFound
		}
		at.mod, at.headMod = response.Header.Revision, response.Kvs[0].ModRevision
		at.head, err = decodeHead(response.Kvs[0].Value)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read etcd at %s: %w", b.headKey(), err)
	}
	return at, nil
}

// loadEntries returns what the entries write, each object as the last of them does.
func (b *Backend) loadEntries(ctx context.Context, at *state) (map[string]storage.Record, error) {
	err := b.page(ctx, b.entryKey(""), at.mod, func(kv *mvccpb.KeyValue) error {
		_, id := b.parse(kv.Key)
		e, err := b.readEntry(ctx, id, kv.Value, at.mod)
		at.entries[id] = e
		return err
	})
	if err != nil {
		return nil, err
	}
	over := map[string]storage.Record{}
	for _, e := range slices.SortedFunc(maps.Values(at.entries), func(a, b *entry) int { return cmp.Compare(a.Revision, b.Revision) }) {
		for _, operation := range e.operations {
			over[operation.Key] = storage.Record{Key: operation.Key, Revision: e.Revision, Value: operation.Value}
		}
	}
	return over, nil
}

// page calls each for every key with a prefix, in order.
func (b *Backend) page(ctx context.Context, prefix string, mod int64, each func(*mvccpb.KeyValue) error) error {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		var page *clientv3.GetResponse
		ctx, cancel := within(ctx)
		err := b.cluster.do(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
			page, err = client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(pageKeys), clientv3.WithRev(mod),
				clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend))
			return err //nolint:wrapcheck // below
		})
		cancel()
		if err != nil {
			return fmt.Errorf("read etcd at %s: %w", prefix, err)
		}
		for _, kv := range page.Kvs {
			if err := each(kv); err != nil {
				return err
			}
			from = string(kv.Key) + "\x00"
		}
		if !page.More {
			return nil
		}
	}
}

// readRecord reads the record of an object, whose first value is given.
func (b *Backend) readRecord(ctx context.Context, key string, first []byte, mod int64) (storage.Record, error) {
	count, size := binary.Uvarint(first)
	if size <= 0 || count == 0 {
		return storage.Record{}, storage.Corrupt(key, "does not say how many parts it has")
	}
	record := bytes.Clone(first[size:])
	if count > 1 {
		found := uint64(1)
		err := b.page(ctx, b.partsOf(key), mod, func(kv *mvccpb.KeyValue) error {
			record = append(record, kv.Value...)
			found++
			return nil
		})
		if err != nil {
			return storage.Record{}, err
		}
		if found != count {
			return storage.Record{}, storage.Corrupt(key, fmt.Sprintf("%d parts are there of %d", found, count))
		}
	}
	return storage.DecodeRecord(key, record) //nolint:wrapcheck // names the key
}

// decodeServer reads what a server says of itself.
func decodeServer(id string, value []byte) (storage.Server, error) {
	server := storage.Server{ID: id}
	if err := json.Unmarshal(value, &server); err != nil {
		return server, fmt.Errorf("%w: servers/%s: %w", storage.ErrCorrupt, id, err)
	}
	return server, nil
}
