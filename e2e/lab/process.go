package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/nameward/nameward/e2e/lab/labclock"
)

// Patience is how long the lab waits for a process to do what it should, on a machine that may be a virtual
// one, slow and busy. Nothing passes because it ends.
const Patience = 3 * time.Minute

// pace is how often the lab looks at first whether it did, and maxPace how often at last: who asks too often
// takes the CPU from whom is asked.
const (
	pace    = 5 * time.Millisecond
	maxPace = 100 * time.Millisecond
)

// Process is a program that runs in a namespace of the lab.
type Process struct {
	// Log is the file that holds what it printed.
	Log  string
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start runs a program in a namespace. What it prints goes into the lab's directory, and it ends with the lab.
func (l *Lab) Start(ctx context.Context, ns *Namespace, name, program string, args ...string) (*Process, error) {
	log, err := os.OpenFile(filepath.Join(l.Dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() //nolint:errcheck // the process has its own descriptor
	p := &Process{Log: log.Name(), name: name, cmd: ns.Command(ctx, program, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(p.cmd.Environ(), labclock.Variable+"="+l.Dir)
	// A process of its own group, so that a Ctrl-C on the demo reaches the demo alone, and gone with it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	l.cleanup = append(l.cleanup, p.Kill)
	return p, nil
}

// Kill ends the process at once (SIGKILL), and waits for its end.
func (p *Process) Kill() error { return p.signal(syscall.SIGKILL) }

// Stop asks the process to end (SIGTERM), and waits until it has.
func (p *Process) Stop() error { return p.signal(syscall.SIGTERM) }

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Freeze stops the process where it is, and Thaw lets it go on: its machine answers for it meanwhile.
func (p *Process) Freeze() error { return p.cmd.Process.Signal(syscall.SIGSTOP) }

// Thaw ends Freeze.
func (p *Process) Thaw() error { return p.cmd.Process.Signal(syscall.SIGCONT) }

// Memory returns the memory of the process, in bytes.
func (p *Process) Memory() (int, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	var size, resident int
	if _, err := fmt.Sscan(string(content), &size, &resident); err != nil {
		return 0, err
	}
	return resident * os.Getpagesize(), nil
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.done }

func (p *Process) signal(signal syscall.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	if err := p.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	select {
	case <-p.done:
		return nil
	case <-time.After(Patience):
		return fmt.Errorf("%s does not end at %v", p.name, signal)
	}
}

// await asks until ready succeeds, or the process ends, or patience does.
func (p *Process) await(ctx context.Context, what string, ready func() error) error {
	err := Await(ctx, ready, p.done)
	if err == nil {
		return nil
	}
	log, _ := os.ReadFile(p.Log)
	return fmt.Errorf("wait until %s %s: %w\n%s", p.name, what, err, log)
}

// Await asks until ready succeeds. It gives up when ctx or patience ends, or the channel is closed.
func Await(ctx context.Context, ready func() error, abandoned <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	for pause := pace; ; pause = min(pause*5/4, maxPace) {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-abandoned:
			return fmt.Errorf("it has ended: %w", err)
		case <-time.After(pause):
		}
	}
}
