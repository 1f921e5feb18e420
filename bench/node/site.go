package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/nameward/nameward/bpf"
	"github.com/nameward/nameward/e2e/lab"
)

const metricsAddress = "127.0.0.1:7481"

// site is an agent that runs on a node of its own, with the server that it hears.
type site struct {
	*lab.Lab
	agent   *lab.Process
	server  *server
	session *session
	state   *ebpf.Map // says which generation of the rules is in force
	feed    *feed

	cleanup []func() error
}

// open makes a lab for the agent that is in a directory, and starts it. The caller closes the site, also when
// ctx has ended.
func open(ctx context.Context, bin string, flags ...string) (s *site, err error) {
	s = &site{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.Lab, err = lab.New(ctx, bin); err != nil {
		return s, err
	}
	s.cleanup = append(s.cleanup, s.Close)
	if err := s.start(ctx, flags); err != nil {
		return s, err
	}
	pin := filepath.Join(s.BPFDir, "v4", "maps", bpf.DatapathMapState)
	if s.state, err = ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true}); err != nil {
		return s, fmt.Errorf("open the agent's state: %w", err)
	}
	s.cleanup = append(s.cleanup, s.state.Close)
	if s.feed, err = openFeed(filepath.Join(s.BPFDir, "v4", "programs")); err != nil {
		return s, err
	}
	s.cleanup = append(s.cleanup, s.feed.close)
	return s, nil
}

func (s *site) start(ctx context.Context, flags []string) error {
	var listener net.Listener
	err := s.Node.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", lab.ServerAddress)
		return err
	})
	if err != nil {
		return fmt.Errorf("listen as policy server: %w", err)
	}
	s.server = serve(listener)
	s.cleanup = append(s.cleanup, func() error { s.server.stop(); return nil })
	if s.agent, err = s.StartAgentAlone(ctx, append([]string{"--metrics-listen", metricsAddress}, flags...)...); err != nil {
		return err
	}
	s.session, err = s.server.accept(ctx)
	return err
}

func (s *site) close() error {
	var errs []error
	for len(s.cleanup) > 0 {
		last := len(s.cleanup) - 1
		errs = append(errs, s.cleanup[last]())
		s.cleanup = s.cleanup[:last]
	}
	return errors.Join(errs...)
}

// generation is which of the two sets of tables packets are judged by.
func (s *site) generation() (uint32, error) {
	var state bpf.DatapathState
	err := s.state.Lookup(uint32(0), &state)
	return state.Active, err
}

// awaitSwitch waits until packets are judged by another generation, and returns when that was seen.
func (s *site) awaitSwitch(ctx context.Context, before uint32) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ctx.Err() == nil {
		now, err := s.generation()
		if err != nil {
			return time.Time{}, err
		}
		if now != before {
			return time.Now(), nil
		}
		time.Sleep(100 * time.Microsecond)
	}
	return time.Time{}, ctx.Err()
}

// metrics reads what the agent says of itself, labels included in the name.
func (s *site) metrics(ctx context.Context) (map[string]float64, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return s.Node.Dial("tcp", metricsAddress, time.Second)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+metricsAddress+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil {
		return nil, fmt.Errorf("read metrics: %w", err)
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, found := strings.Cut(strings.TrimSpace(line), " ")
		if number, err := strconv.ParseFloat(value, 64); found && err == nil {
			values[name] = number
		}
	}
	return values, nil
}
