package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"github.com/nameward/nameward/controlplane/storage"
)

const (
	// probeEvery is how often a server makes sure that it is up to date, and probeTimeout what the watch gets for it.
	probeEvery   = time.Second
	probeTimeout = 2 * time.Second
	watchPause   = 50 * time.Millisecond
)

// errLost says that changes were lost: everything is to be loaded anew.
var errLost = errors.New("changes were lost")

// Follow keeps the server up to date until ctx ends: it follows the watch, commits what waits, folds what is large,
// and is registered as a server.
func (b *Backend) Follow(ctx context.Context, follower storage.Follower) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.follow(ctx, follower) })
	g.Go(func() error { return b.commitAll(ctx) })
	g.Go(func() error { return b.fold(ctx) })
	g.Go(func() error { return b.probe(ctx) })
	g.Go(func() error { return b.session.run(ctx, b) })
	return g.Wait() //nolint:wrapcheck // each says what it did
}

// probe makes sure now and then that the watch is alive. A member that is cut off from the others, or hangs, lets a
// watch be silent.
func (b *Backend) probe(ctx context.Context) error {
	ticker := time.NewTicker(probeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		probe, cancel := context.WithTimeout(ctx, probeTimeout)
		if err := b.catchUp(probe); err != nil && ctx.Err() == nil {
			notify(b.kick)
		}
		cancel()
	}
}

// follow watches, at one member after another, until ctx ends.
func (b *Backend) follow(ctx context.Context, follower storage.Follower) error {
	for next := b.cluster.preferred.Load(); ctx.Err() == nil; next++ {
		err := b.watch(ctx, b.cluster.members[next%int64(len(b.cluster.members))], follower)
		if ctx.Err() != nil {
			break
		}
		b.metrics.watches.Inc()
		b.cfg.Log.Warn("watch of etcd begins anew", "err", err)
		if errors.Is(err, errLost) {
			b.reload(ctx, follower)
		}
		select {
		case <-ctx.Done():
		case <-time.After(watchPause):
		}
	}
	return nil
}

// watch follows one watch until it breaks, or is kicked.
func (b *Backend) watch(ctx context.Context, member *clientv3.Client, follower storage.Follower) error {
	select {
	case <-b.kick:
	default:
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-b.kick:
			cancel(errors.New("it is behind"))
		case <-done:
		}
	}()
	b.mu.Lock()
	after := b.mod
	b.mu.Unlock()
	from, to := b.watched()
	// A member without a leader ends the watch, instead of letting it be silent.
	events := member.Watch(clientv3.WithRequireLeader(ctx), from, clientv3.WithRange(to), clientv3.WithRev(after+1))
	for response := range events {
		switch {
		case response.CompactRevision > 0:
			return fmt.Errorf("%w: etcd has compacted them", errLost)
		case response.Err() != nil:
			return response.Err()
		}
		for len(response.Events) > 0 {
			mod := response.Events[0].Kv.ModRevision
			n := 1
			for n < len(response.Events) && response.Events[n].Kv.ModRevision == mod {
				n++
			}
			if err := b.takeStep(ctx, mod, response.Events[:n], follower); err != nil {
				return err
			}
			response.Events = response.Events[n:]
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.New("the watch has ended")
}

// step is what one of etcd's revisions changed.
type step struct {
	mod     int64
	head    *head
	objects map[string][]byte // as they were put; those that are gone are in head
	entries map[string][]byte // nil: gone
	servers map[string]*storage.Server
}

func (b *Backend) readStep(mod int64, events []*clientv3.Event) (*step, error) {
	s := &step{mod: mod, objects: map[string][]byte{}, entries: map[string][]byte{}, servers: map[string]*storage.Server{}}
	for _, event := range events {
		gone := event.Type == mvccpb.Event_DELETE
		switch kind, name := b.parse(event.Kv.Key); kind {
		case "head":
			if gone {
				return nil, fmt.Errorf("%w: somebody has deleted head", errLost)
			}
			h, err := decodeHead(event.Kv.Value)
			if err != nil {
				return nil, err
			}
			s.head = &h
		case "objects":
			if !gone {
				s.objects[name] = event.Kv.Value
			}
		case "entries":
			s.entries[name] = event.Kv.Value
			if gone {
				s.entries[name] = nil
			}
		case "servers":
			s.servers[name] = nil
			if !gone {
				server, err := decodeServer(name, event.Kv.Value)
				if err != nil {
					return nil, err
				}
				s.servers[name] = &server
			}
		}
	}
	return s, nil
}

// takeStep takes in what one of etcd's revisions changed.
func (b *Backend) takeStep(ctx context.Context, mod int64, events []*clientv3.Event, follower storage.Follower) error {
	s, err := b.readStep(mod, events)
	if err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	if s.head != nil {
		for _, of := range s.head.Commits {
			if err := b.takeCommit(ctx, s, of, follower); err != nil {
				return err
			}
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mod = mod
	for id, server := range s.servers {
		delete(b.servers, id)
		if server != nil {
			b.servers[id] = *server
		}
	}
	for id, header := range s.entries {
		if header == nil {
			delete(b.entries, id)
		}
	}
	if s.head != nil {
		b.head, b.headMod = *s.head, mod
		// What was sent before this, and is no part of it, can never be in force.
		for id, c := range b.own {
			if c.ended && c.base < mod {
				delete(b.own, id)
			}
		}
		for _, of := range s.head.Commits {
			if c := b.own[of.ID]; c != nil {
				delete(b.own, of.ID)
				c.end(nil)
			}
		}
	}
	b.announce()
	return nil
}

// takeCommit makes one commit visible.
func (b *Backend) takeCommit(ctx context.Context, s *step, of headCommit, follower storage.Follower) error {
	b.mu.Lock()
	own := b.own[of.ID]
	b.mu.Unlock()
	e, operations, err := b.contentOf(ctx, s, of, own)
	if err != nil {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	if own != nil {
		own.applied(of.Revision)
	} else if err := follower.Apply(changeOf(of.Revision, operations)); err != nil {
		return fmt.Errorf("%w: revision %d: %w", errLost, of.Revision, err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, operation := range operations {
		switch {
		case operation.Looks:
		case operation.Value == nil:
			delete(b.index, operation.Key)
		default:
			b.index[operation.Key] = indexed{of.Revision, partCount(operation.Value)}
		}
	}
	if e != nil {
		b.entries[e.ID] = e
		notify(b.folding)
	}
	return nil
}

// contentOf returns what a commit wrote, and its entry if it has one.
func (b *Backend) contentOf(ctx context.Context, s *step, of headCommit, own *commit) (e *entry, operations []storage.Operation, err error) {
	switch {
	case own != nil && of.Entry != "":
		e = &entry{ID: of.Entry, Revision: of.Revision, operations: own.operations}
		e.prepare(time.Now())
		return e, own.operations, nil
	case own != nil:
		return nil, own.operations, nil
	case of.Entry != "":
		if e, err = b.readEntry(ctx, of.Entry, s.entries[of.Entry], s.mod); err != nil {
			return nil, nil, err
		}
		return e, e.operations, nil
	}
	for key, value := range s.objects {
		// The value of such a commit is whole, and says which of the transaction's commits wrote it.
		record, err := b.readRecord(ctx, key, value, s.mod)
		if err != nil {
			return nil, nil, err
		}
		if record.Revision == of.Revision {
			operations = append(operations, storage.Operation{Key: key, Value: record.Value})
		}
	}
	for _, key := range of.Deleted {
		operations = append(operations, storage.Operation{Key: key})
	}
	return nil, operations, nil
}

func changeOf(revision uint64, operations []storage.Operation) storage.Change {
	change := storage.Change{Revision: revision}
	for _, operation := range operations {
		change.Records = append(change.Records, storage.Record{Key: operation.Key, Revision: revision, Value: operation.Value})
	}
	slices.SortFunc(change.Records, func(a, b storage.Record) int { return cmp.Compare(a.Key, b.Key) })
	return change
}

// reload takes everything anew, until that works or ctx ends.
func (b *Backend) reload(ctx context.Context, follower storage.Follower) {
	b.metrics.reloads.Inc()
	for ctx.Err() == nil {
		var loaded *state
		err := follower.Reload(func(record func(storage.Record) error) (meta storage.Meta, err error) {
			if loaded, err = b.load(ctx, record); err != nil {
				return meta, err
			}
			return loaded.head.meta(), nil
		})
		if err == nil {
			b.replace(loaded)
			return
		}
		b.cfg.Log.Error("storage not loaded anew, will try on", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(probeEvery):
		}
	}
}

// replace puts what was loaded in place of what was known. Which of the commits under way are part of it cannot be
// told.
func (b *Backend) replace(loaded *state) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id, c := range b.own {
		if c.base < loaded.headMod {
			delete(b.own, id)
			c.end(storage.ErrUnknownOutcome)
		}
	}
	before := b.changed
	b.state = *loaded
	close(before)
}
