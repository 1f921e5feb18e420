package controlplane

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
)

// endpoints are where the server listens.
type endpoints struct {
	api     *connections
	metrics net.Listener  // nil for none
	backups *backupServer // nil where the storage is not a file
}

// openEndpoints opens all or none.
func openEndpoints(ctx context.Context, cfg Config, backend backend, log *slog.Logger) (*endpoints, error) {
	api, err := listen(ctx, cfg.Listen)
	if err != nil {
		return nil, err
	}
	open := &endpoints{api: newConnections(api, cfg.MaxConnections, log.With("component", "api"))}
	if cfg.MetricsListen != "" {
		if open.metrics, err = listen(ctx, cfg.MetricsListen); err != nil {
			return nil, errors.Join(err, open.close())
		}
	}
	if backend.bolt == nil {
		return open, nil
	}
	if open.backups, err = listenForBackups(ctx, cfg.DataDir, backend.bolt, log.With("component", "backup")); err != nil {
		return nil, errors.Join(err, open.close())
	}
	return open, nil
}

func listen(ctx context.Context, address string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return listener, nil
}

func (e *endpoints) close() error {
	err := e.api.Close()
	if e.metrics != nil {
		err = errors.Join(err, e.metrics.Close())
	}
	return err //nolint:wrapcheck // beside the fault that made it close
}
