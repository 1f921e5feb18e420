package controlplane

import (
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/nameward/nameward/controlplane/storage"
	"github.com/nameward/nameward/controlplane/storage/bolt"
	"github.com/nameward/nameward/controlplane/storage/etcd"
)

// backend is the storage of the kind that is configured.
type backend struct {
	storage.Backend
	bolt   *bolt.Backend // nil with etcd
	shared *etcd.Backend // nil with bolt
}

func openBackend(cfg Config, log *slog.Logger) (backend, error) {
	if cfg.Store == storeBolt {
		file, err := bolt.Open(cfg.DataDir)
		if err != nil {
			return backend{}, fmt.Errorf("open storage: %w", err)
		}
		return backend{Backend: file, bolt: file}, nil
	}
	shared, err := openEtcd(cfg, log)
	if err != nil {
		return backend{}, err
	}
	return backend{Backend: shared, shared: shared}, nil
}

func openEtcd(cfg Config, log *slog.Logger) (*etcd.Backend, error) {
	config, err := cfg.etcdTLS()
	if err != nil {
		return nil, err
	}
	shared, err := etcd.Open(etcd.Config{
		Endpoints: cfg.EtcdEndpoints, Prefix: cfg.EtcdPrefix, TLS: config, Advertise: cfg.advertised(), Log: log.With("component", "storage"),
	})
	if err != nil {
		return nil, fmt.Errorf("open storage: %w", err)
	}
	return shared, nil
}

func (b backend) collectors() []prometheus.Collector {
	if b.shared != nil {
		return b.shared.Collectors()
	}
	return b.bolt.Collectors()
}
