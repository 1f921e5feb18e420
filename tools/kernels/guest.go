package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed init.sh
var initScript string

// A guest is a virtual machine that runs one part on one kernel.
type guest struct {
	kernel *bootable
	part   part
	root   string // the archive that all guests have
	dir    string // for its files, which are large
	log    string
	memory int
	limit  time.Duration
	echo   io.Writer // of what the jobs print
}

// boots is how often a guest is started that does not come up: without KVM, a kernel now and then panics on
// its way.
const boots = 3

// kernelArguments spare a slow machine what it need not do, and take the emulated clock for what it is.
const kernelArguments = "console=ttyS0 loglevel=5 panic=-1 rdinit=/init mitigations=off nokaslr no_timer_check " +
	"tsc=reliable random.trust_cpu=on nmi_watchdog=0 rcupdate.rcu_cpu_stall_suppress=1"

// run boots the guest and gives what became of its part.
func (g *guest) run(ctx context.Context) *result {
	began := time.Now()
	r := &result{jobs: g.part.jobs}
	for boot := range boots {
		if r = g.boot(ctx); r.up || r.err != nil || ctx.Err() != nil {
			break
		}
		r.notes = append(r.notes, fmt.Sprintf("did not come up at boot %d", boot+1))
	}
	r.took = time.Since(began)
	return r
}

func (g *guest) boot(ctx context.Context) *result {
	r := newResult(g.part.jobs)
	dir, err := os.MkdirTemp(g.dir, "guest-")
	if err != nil {
		r.err = err
		return r
	}
	defer os.RemoveAll(dir) //nolint:errcheck // below a directory that goes too
	initrd, err := g.initrd(dir)
	if err != nil {
		r.err = err
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, g.limit)
	defer cancel()
	console, status := strings.TrimSuffix(g.log, ".log")+".console", filepath.Join(dir, "status")
	qemu := exec.CommandContext(ctx, "qemu-system-x86_64",
		// One thread for all CPUs of the guest: with one for each, kernels were seen to panic.
		"-M", "pc", "-cpu", "max", "-accel", "tcg,thread=single", "-smp", "2", "-m", fmt.Sprint(g.memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", g.kernel.image, "-initrd", initrd, "-append", kernelArguments,
		"-serial", "file:"+console, "-chardev", "stdio,id=out,signal=off", "-serial", "chardev:out", "-serial", "file:"+status)
	qemu.WaitDelay = time.Second
	var stderr strings.Builder
	qemu.Stderr = &stderr
	out, err := qemu.StdoutPipe()
	if err == nil {
		err = qemu.Start()
	}
	if err != nil {
		r.err = err
		return r
	}
	r.err = g.follow(r, out)
	waiting := qemu.Wait()
	r.cpu = qemu.ProcessState.UserTime() + qemu.ProcessState.SystemTime()
	r.readStatus(status)
	r.readConsole(console)
	if r.err == nil && !r.down {
		r.err = g.whyNotDown(ctx, r, waiting, stderr.String())
	}
	return r
}

// whyNotDown says why a guest ended before it was through. One that did not come up is no error yet.
func (g *guest) whyNotDown(ctx context.Context, r *result, waiting error, stderr string) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("not through after %v, in %s", g.limit, r.current())
	case ctx.Err() != nil:
		return ctx.Err()
	case !r.up && stderr != "":
		return fmt.Errorf("qemu: %w: %s", waiting, strings.TrimSpace(stderr))
	case !r.up:
		return nil
	}
	return fmt.Errorf("the machine stopped in %s", r.current())
}

// initrd joins what the guest boots with.
func (g *guest) initrd(dir string) (string, error) {
	own := filepath.Join(dir, "own.cpio")
	a, err := newArchive(own)
	if err != nil {
		return "", err
	}
	err = a.text("jobs.sh", g.part.script(), 0o644)
	for _, family := range []string{"iptables", "ip6tables"} {
		for _, form := range []string{"", "-save", "-restore"} {
			err = errors.Join(err, a.link("usr/sbin/"+family+form, family+"-"+g.part.backend+form))
		}
	}
	if err = errors.Join(err, a.close()); err != nil {
		return "", err
	}
	initrd := filepath.Join(dir, "initrd")
	return initrd, concatenate(initrd, g.root, g.kernel.modules, own)
}

// follow reads what the jobs print, and keeps it.
func (g *guest) follow(r *result, out io.Reader) error {
	log, err := os.Create(g.log)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // a failure to write has shown
	fmt.Fprintf(log, "Linux %s\n", g.kernel.release)
	lines := bufio.NewReader(io.TeeReader(out, io.MultiWriter(log, g.echo)))
	for {
		line, err := lines.ReadString('\n')
		r.output.read(strings.TrimRight(line, "\r\n"))
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
