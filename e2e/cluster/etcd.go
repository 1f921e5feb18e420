package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Place is where a member runs.
type Place struct {
	// Host is the address at which it listens; Client and Peer are its ports.
	Host         string
	Client, Peer int
	// Command runs it there; nil for here.
	Command Command
	// Owner is whose its files are; 0 for the caller's.
	Owner int
}

// Etcd is a cluster of etcd.
type Etcd struct {
	Members []*Member
}

// Member is one of its processes.
type Member struct {
	*Process
	// Endpoint is where clients reach it, HOST:PORT.
	Endpoint string
}

// Here returns places on this machine, at ports that nobody has.
func Here(members int) ([]Place, error) {
	ports, err := freePorts(2 * members)
	if err != nil {
		return nil, err
	}
	var places []Place
	for i := range members {
		places = append(places, Place{Host: "127.0.0.1", Client: ports[2*i], Peer: ports[2*i+1]})
	}
	return places, nil
}

// StartEtcd starts a member at each place, with their files in dir. They end by Kill.
func StartEtcd(ctx context.Context, dir string, places []Place, flags ...string) (*Etcd, error) {
	var initial []string
	for i, place := range places {
		initial = append(initial, fmt.Sprintf("etcd-%d=http://%s:%d", i, place.Host, place.Peer))
	}
	e := &Etcd{}
	for i, place := range places {
		name := fmt.Sprintf("etcd-%d", i)
		data := filepath.Join(dir, name)
		if err := os.Mkdir(data, 0o700); err != nil {
			return e, err //nolint:wrapcheck // names the directory
		}
		if place.Owner != 0 {
			if err := os.Chown(data, place.Owner, place.Owner); err != nil {
				return e, err //nolint:wrapcheck // names the directory
			}
		}
		client, peer := fmt.Sprintf("http://%s:%d", place.Host, place.Client), fmt.Sprintf("http://%s:%d", place.Host, place.Peer)
		args := append([]string{
			"--name", name, "--data-dir", filepath.Join(data, "data"), "--logger", "zap", "--log-level", "warn",
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(initial, ","), "--initial-cluster-token", filepath.Base(dir),
			"--enable-v2=false",
		}, flags...)
		command := place.Command
		if command == nil {
			command = exec.CommandContext
		}
		m := &Member{
			Process:  NewProcess(dir, name, func(context.Context) *exec.Cmd { return command(context.WithoutCancel(ctx), "etcd", args...) }),
			Endpoint: fmt.Sprintf("%s:%d", place.Host, place.Client),
		}
		e.Members = append(e.Members, m)
		if err := m.Start(ctx); err != nil {
			return e, errors.Join(err, e.Kill())
		}
	}
	return e, nil
}

// Endpoints returns those of all members.
func (e *Etcd) Endpoints() []string {
	var endpoints []string
	for _, m := range e.Members {
		endpoints = append(endpoints, m.Endpoint)
	}
	return endpoints
}

// Kill ends all members at once.
func (e *Etcd) Kill() error {
	var errs []error
	for _, m := range e.Members {
		errs = append(errs, m.Kill())
	}
	return errors.Join(errs...)
}

// Await returns when the members have a leader, as one of them says.
func (e *Etcd) Await(ctx context.Context) error {
	for {
		for _, m := range e.Members {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Endpoint+"/health", nil)
			if err != nil {
				return err //nolint:wrapcheck // of a test
			}
			response, err := http.DefaultClient.Do(request)
			if err == nil {
				_ = response.Body.Close()
				if response.StatusCode == http.StatusOK {
					return nil
				}
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("etcd is not healthy: %w\n%s", ctx.Err(), e.Members[0].ReadLog())
		case <-time.After(50 * time.Millisecond):
		}
	}
}
