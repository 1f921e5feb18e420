package dataplane

import (
	"context"
	"log/slog"
)

// watcher has the hooks looked at as soon as the kernel tells that somebody changed rules, where it does.
type watcher struct {
	hooks interface {
		Watch(ctx context.Context, changed func()) error
	}
	changed func()
	log     *slog.Logger
}

// run ends with what it watches: the hooks are looked at every few seconds anyway.
func (w *watcher) run(ctx context.Context) error {
	if err := w.hooks.Watch(ctx, w.changed); err != nil {
		w.log.Warn("changes of packet filter rules are not told by the kernel: they are looked for every 2 seconds", "err", err)
	}
	return nil
}
