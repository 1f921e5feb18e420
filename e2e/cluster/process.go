// Package cluster runs etcd clusters, for tests of policy servers that share one.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// Command makes a command: exec.CommandContext, or one that runs it elsewhere.
type Command func(ctx context.Context, name string, args ...string) *exec.Cmd

// Process is a program that can be killed, frozen and started again.
type Process struct {
	// Log is the file that holds what it printed.
	Log string

	command func(ctx context.Context) *exec.Cmd
	mu      sync.Mutex // guards all below
	cmd     *exec.Cmd
	done    chan struct{}
}

// NewProcess makes a process that Start starts, with its log in dir.
func NewProcess(dir, name string, command func(ctx context.Context) *exec.Cmd) *Process {
	return &Process{Log: filepath.Join(dir, name+".log"), command: command}
}

// Start starts the program, again after Kill.
func (p *Process) Start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	cmd := p.command(ctx)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", filepath.Base(p.Log), err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		close(done)
	}()
	p.cmd, p.done = cmd, done
	return nil
}

// Signal sends a signal.
func (p *Process) Signal(signal syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return nil
	}
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", filepath.Base(p.Log), err)
	}
	return nil
}

// Kill ends the process at once, frozen or not, and waits for its end.
func (p *Process) Kill() error { return p.endBy(syscall.SIGKILL) }

// Stop asks the process to end, and waits for that.
func (p *Process) Stop() error { return p.endBy(syscall.SIGTERM) }

func (p *Process) endBy(signal syscall.Signal) error {
	if err := p.Signal(signal); err != nil {
		return err
	}
	p.mu.Lock()
	done := p.done
	p.mu.Unlock()
	if done != nil {
		<-done
	}
	return nil
}

// Exited returns a channel that is closed when the process that was started last has ended.
func (p *Process) Exited() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// ReadLog returns what it printed.
func (p *Process) ReadLog() string {
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// freePorts returns ports of loopback that nobody listens on now.
func freePorts(n int) (ports []int, err error) {
	for range n {
		listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err //nolint:wrapcheck // of a test
		}
		defer listener.Close() //nolint:errcheck // of a test
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
