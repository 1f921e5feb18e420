package fleet

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"google.golang.org/grpc"

	namewardv1 "github.com/nameward/nameward/api/nameward/v1"
)

const (
	patience   = 2 * time.Minute
	maxMessage = 64 << 20
)

var errStart = errors.New("the server does not say that it listens")

// server is a policy server in a process of its own, with a client of its operator.
type server struct {
	bin, dir, address string
	flags             []string // besides those that all have
	keys              *keys    // nil: plain text
	command           *exec.Cmd
	connection        *grpc.ClientConn
	policies          namewardv1.PolicyServiceClient
	sets              namewardv1.DomainSetServiceClient
	nodes             namewardv1.NodeServiceClient
	mappings          namewardv1.ObservationServiceClient
	logged            sync.WaitGroup
	last              bytes.Buffer // of its log, once it has ended

	mu   sync.Mutex     // guards left
	left map[string]int // nodes that left, by why
}

// open starts a server with a new store, in plain text.
func open(ctx context.Context, bin string, flags ...string) (*server, error) {
	return openWith(ctx, bin, nil, flags...)
}

// openWith starts one that is spoken with by mutual TLS, unless there are no keys.
func openWith(ctx context.Context, bin string, keys *keys, flags ...string) (*server, error) {
	dir, err := os.MkdirTemp("", "nameward-bench-store-")
	if err != nil {
		return nil, err
	}
	s := &server{bin: bin, dir: dir, address: "127.0.0.1:0", flags: flags, keys: keys}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.connection, err = grpc.NewClient("passthrough:///"+s.address, grpc.WithTransportCredentials(keys.ofOperator()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.WaitForReady(true)))
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.policies = namewardv1.NewPolicyServiceClient(s.connection)
	s.sets = namewardv1.NewDomainSetServiceClient(s.connection)
	s.nodes = namewardv1.NewNodeServiceClient(s.connection)
	s.mappings = namewardv1.NewObservationServiceClient(s.connection)
	return s, nil
}

// start starts the process, on the address of the one before, and returns when it listens.
func (s *server) start(ctx context.Context) error {
	s.command = exec.CommandContext(ctx, s.bin, slices.Concat([]string{
		"--data-dir", s.dir, "--listen", s.address, "--metrics-listen", "", "--log-format", "json",
	}, s.keys.flags(), s.flags)...)
	log, err := s.command.StderrPipe()
	if err != nil {
		return err
	}
	if err := s.command.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	listening := make(chan string, 1)
	s.logged.Go(func() { s.follow(log, listening) })
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		return errStart
	case address, ok := <-listening:
		if !ok {
			return fmt.Errorf("%w: %s", errStart, s.last.String())
		}
		s.address = address
		return nil
	}
}

// follow reads the log to its end.
func (s *server) follow(log io.Reader, listening chan<- string) {
	defer close(listening)
	told := false
	for lines := bufio.NewReader(log); ; {
		line, err := lines.ReadBytes('\n')
		var record struct{ Msg, Address, Err string }
		if json.Unmarshal(line, &record) == nil {
			switch {
			case !told && record.Msg == "listening":
				told = true
				listening <- record.Address
			case record.Msg == "node left":
				s.leaves(record.Err)
			}
		}
		if !told {
			s.last.Write(line)
		}
		if err != nil {
			return
		}
	}
}

func (s *server) leaves(why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left == nil {
		s.left = map[string]int{}
	}
	s.left[why]++
}

// whyLeft returns how many nodes left so far, by why.
func (s *server) whyLeft() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.left)
}

// kill ends the process without a word.
func (s *server) kill() error { return s.end(syscall.SIGKILL) }

// stop lets the process end.
func (s *server) stop() error { return s.end(syscall.SIGTERM) }

func (s *server) end(signal syscall.Signal) error {
	if s.command == nil || s.command.Process == nil || s.command.ProcessState != nil {
		return nil
	}
	if err := s.command.Process.Signal(signal); err != nil {
		return err
	}
	s.logged.Wait()
	var exit *exec.ExitError
	if err := s.command.Wait(); err != nil && !errors.As(err, &exit) {
		return err
	}
	return nil
}

func (s *server) close() error {
	err := s.kill()
	if s.connection != nil {
		err = errors.Join(err, s.connection.Close())
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// use is what the process has had of the processors, and what it holds of memory.
type use struct {
	cpu            time.Duration
	resident, peak float64
}

// clockTicks is what the kernel counts the time of processes in, a second (USER_HZ).
const clockTicks = 100

// ownCPU is what this process has had of the processors.
func ownCPU() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		return 0
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func (s *server) use() (u use, err error) {
	pid := s.command.Process.Pid
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// The name, in parentheses, may have spaces. Behind it: the state, which is the third field.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const utime, stime = 14 - 3, 15 - 3
	if len(fields) <= stime {
		return u, fmt.Errorf("read times of the server: %q", stat)
	}
	for _, field := range fields[utime : stime+1] {
		ticks, err := strconv.Atoi(field)
		if err != nil {
			return u, fmt.Errorf("read times of the server: %w", err)
		}
		u.cpu += time.Duration(ticks) * time.Second / clockTicks
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	for line := range strings.Lines(string(status)) {
		name, value, _ := strings.Cut(line, ":")
		kilobytes, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
		if err != nil {
			continue
		}
		switch name {
		case "VmRSS":
			u.resident = kilobytes * 1024
		case "VmHWM":
			u.peak = kilobytes * 1024
		}
	}
	return u, nil
}
